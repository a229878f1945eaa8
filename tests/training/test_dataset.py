"""The rows of a run are mixed by tokens only with the tokenizer of the base."""

from pathlib import Path

import pytest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.dataset import load_examples
from tests.training.recipes import HELD_OUT, recipe


def test_a_ratio_of_tokens_is_counted_by_the_base_s_tokenizer(tmp_path: Path) -> None:
    made = recipe(tmp_path, general=HELD_OUT, ratio="5:5", mix_by="tokens", rows=2000)
    general, domain = load_examples(made).facts.mix
    assert general.tokens is not None
    assert domain.tokens is not None
    assert general.tokens == pytest.approx(domain.tokens, rel=0.1)


def test_a_base_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    made = recipe(
        tmp_path, general=HELD_OUT, ratio="5:5", mix_by="tokens", model_name_or_path=str(tmp_path / "none")
    )
    with pytest.raises(LoraComposeError) as refused:
        load_examples(made)
    assert refused.value.code == "base_not_loaded"
