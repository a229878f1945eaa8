from hypothesis import given, settings
from hypothesis import strategies as st

from lora_compose.benchmarks.workload import Prompts


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 2000))
def test_a_prompt_has_the_length_asked_for_and_no_blank_at_an_end(seed: int, chars: int) -> None:
    (text,) = Prompts(seed).take(1, chars)
    assert len(text.strip()) == chars


def test_a_seed_gives_the_same_prompts_and_no_prompt_twice() -> None:
    prompts, again = (list(Prompts(3).take(500, 32)) for _ in range(2))
    assert prompts == again
    assert len(set(prompts)) == 500


def test_two_prompts_share_less_than_a_cache_block() -> None:
    """vLLM's smallest prefix-cache block is 16 tokens."""
    assert len({text[:15] for text in Prompts(0).take(2000, 900)}) == 2000
