"""What we override in vLLM still is what we wrote our replacements against."""

import hashlib
import importlib
import inspect
from operator import attrgetter

import pytest
import vllm

from server.engine.plugin import OVERRIDES, VLLM_VERSION, Override


def source_digest(override: Override) -> str:
    module, _, name = override.source.partition(":")
    source = inspect.getsource(attrgetter(name)(importlib.import_module(module)))
    return hashlib.sha256(source.encode()).hexdigest()


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
