"""The upstream source that our overrides replace is unchanged."""

import importlib

import pytest
import vllm

from lora_compose.server.engine.frontend.inspection import changed_overrides, knows, source_digest, takes_lora
from lora_compose.server.engine.plugin import OVERRIDES, VLLM_VERSION, Override


def test_the_pinned_vllm_is_installed() -> None:
    assert vllm.__version__.startswith(VLLM_VERSION)


@pytest.mark.parametrize("override", OVERRIDES, ids=lambda o: o.attribute)
def test_upstream_is_the_code_our_override_was_written_against(override: Override) -> None:
    assert source_digest(override) == override.sha256, (
        f"{override.source} changed upstream: read it, adapt {override.replacement}, then note the digest"
    )


@pytest.mark.parametrize("override", OVERRIDES, ids=lambda o: o.attribute)
def test_the_overridden_name_still_exists(override: Override) -> None:
    target = importlib.import_module(override.module)
    for part in override.attribute.split("."):
        target = getattr(target, part)
    assert callable(target)


def test_the_doctor_s_guard_says_the_same() -> None:
    assert changed_overrides() == []


def test_the_models_of_the_shipped_base_are_known_and_take_adapters() -> None:
    assert knows("LlamaForCausalLM")
    assert takes_lora("LlamaForCausalLM")
    assert not knows("NoSuchForCausalLM")
