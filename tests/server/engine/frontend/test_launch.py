"""vLLM's options with our defaults."""

import pytest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.server.config import EMBEDDED_BASE, ServerConfig, options_of_base
from lora_compose.server.engine.frontend.launch import parse_vllm_args

MODEL = ("--model", str(EMBEDDED_BASE))


@pytest.fixture(autouse=True)
def enough_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lora_compose.server.memory.free_memory", lambda: 8 << 30)


@pytest.mark.parametrize(("words", "expected"), [((), 64), (("--max-loras", "100"), 100)])
def test_as_many_adapters_are_in_memory_as_have_slots(words: tuple[str, ...], expected: int) -> None:
    assert parse_vllm_args([*MODEL, *words]).max_cpu_loras == expected


def test_fewer_in_memory_than_slots_is_refused() -> None:
    with pytest.raises(LoraComposeError, match=r"--max-cpu-loras \(4\) must be at least --max-loras \(8\)"):
        parse_vllm_args([*MODEL, "--max-cpu-loras", "4"])


def test_a_value_that_vllm_refuses_is_one_line() -> None:
    with pytest.raises(LoraComposeError, match="--max-loras") as refused:
        parse_vllm_args([*MODEL, "--max-loras", "many"])
    assert len(refused.value.message.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--tool-call-parser", "herms"], "Did you mean hermes?"),
        (["--reasoning-parser", "no-such"], r"--reasoning-parser \(no-such\) must be one of"),
        (["--chat-template", "/no/template.jinja"], "doesn't exist"),
        (["--tool-parser-plugin", "/no/plugin.py"], "No such file"),
        (["--enable-log-outputs"], "requires --enable-log-requests"),
        (
            ["--additional-config", '{"lora_kernels": "mine"}'],
            r"lora_kernels \('mine'\) must be one of vllm, pooled",
        ),
        (["--additional-config", '{"lora_kernels": "pooled"}'], r"lora_kernels \('pooled'\) is for GPUs"),
        (["--sse-keep-alive-interval", "-1"], "must be a non-negative integer"),
    ],
)
def test_what_only_vllm_can_check_is_refused_as_an_option(words: list[str], part: str) -> None:
    with pytest.raises(LoraComposeError, match=part) as refused:
        parse_vllm_args([*MODEL, *words])
    assert refused.value.code == "invalid_option"


def test_an_option_of_the_user_replaces_the_embedded_base_s() -> None:
    words = options_of_base(ServerConfig(), ["--served-model-name", "mine", "--tool-call-parser=pythonic"])
    assert words == ["--enable-auto-tool-choice"]
