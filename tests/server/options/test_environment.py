"""vLLM's environment variables for HTTP: honoured, or refused when the server starts."""

import os

import pytest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.server.options.environment import check_variables, take_key


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VLLM_SERVER_DEV_MODE", "1"),
        ("VLLM_SKIP_MODEL_NAME_VALIDATION", "true"),
        ("VLLM_USE_RUST_FRONTEND", "1"),
        ("VLLM_DEBUG_LOG_API_SERVER_RESPONSE", "True"),
        ("VLLM_ALLOW_RUNTIME_LORA_UPDATING", "0"),
        ("VLLM_LORA_RESOLVER_CACHE_DIR", "/adapters"),
        ("VLLM_PORT", "tcp://10.0.0.1:8000"),
        ("VLLM_PLUGINS", "lora_filesystem_resolver"),
    ],
)
def test_a_variable_that_would_do_nothing_is_refused(name: str, value: str) -> None:
    with pytest.raises(LoraComposeError, match=f"^{name}={value} ") as refused:
        check_variables({name: value})
    assert refused.value.code == "invalid_option"


def test_a_variable_that_asks_for_what_the_server_does_is_accepted() -> None:
    check_variables({
        "VLLM_SERVER_DEV_MODE": "0",
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH": "1",
        "VLLM_LORA_RESOLVER_CACHE_DIR": "",
        "VLLM_PORT": "9000",
        "VLLM_PLUGINS": "other,lora_compose",
        "VLLM_API_KEY": "secret",
    })


def test_vllms_key_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    assert take_key() == ("secret",)
    assert "VLLM_API_KEY" not in os.environ
    assert take_key() == ()
