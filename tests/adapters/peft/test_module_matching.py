import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists

from lora_compose.adapters.peft.module_matching import BadPattern, TargetedModules

MODULES = [
    "model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj", "model.layers.11.mlp.up_proj",
    "model.layers.1.mlp.experts.0.up_proj", "model.decoder.layers.0.q_proj", "q_proj", "model.q_proj",
]  # fmt: skip
NAMES = ["q_proj", "up_proj", "proj", "self_attn.q_proj", "mlp", "model.q_proj", *MODULES[:2]]
PATTERNS = [
    "q_proj", r".*q_proj", r"model\.layers\.[01]\..*", ".*", "(?:.*self_attn.*)|(?:.*up_proj)", "model",
]  # fmt: skip
names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)
layers = st.none() | st.sampled_from([0, 1, True, 10**400]) | st.lists(st.integers(0, 11), max_size=3)
layers_patterns = st.sampled_from([None, "layers", "decoder.layers", [], ["h", "layers"], ["lay.*"]])


@given(names, st.none() | names | st.sampled_from(PATTERNS), layers, layers_patterns)
def test_the_modules_named_in_a_list_are_pefts(
    named: list[str], excluded: object, layers: object, pattern: object
) -> None:
    _held_to_peft(named, excluded, layers, pattern if layers is not None else None)


@given(st.sampled_from(PATTERNS), st.none() | names | st.sampled_from(PATTERNS))
def test_the_modules_a_pattern_names_are_pefts(pattern: str, excluded: object) -> None:
    _held_to_peft(pattern, excluded, None, None)


def _held_to_peft(named: object, excluded: object, layers: object, pattern: object) -> None:
    fields = {"target_modules": named, "exclude_modules": excluded}
    fields |= {"layers_to_transform": layers, "layers_pattern": pattern}
    targets, config = TargetedModules(**fields), LoraConfig(**fields)  # type: ignore[arg-type]
    for module in MODULES:
        adapted = bool(check_target_module_exists(config, module))
        assert (targets.excluding_field(module) is None) == adapted, module


def test_all_linear_is_every_linear_layer() -> None:
    assert TargetedModules("All-Linear").excluding_field(MODULES[0]) is None


@pytest.mark.parametrize("pattern", ["(", "a**", "[[a]", "x" * 5000, "(?<n>"])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(BadPattern):
        TargetedModules(pattern).excluding_field("q_proj")
    with pytest.raises(BadPattern):
        TargetedModules(["q_proj"], pattern).excluding_field("q_proj")
    with pytest.raises(BadPattern):
        TargetedModules(["q_proj"], None, 0, pattern).excluding_field("model.layers.0.q_proj")


def test_a_pattern_made_to_take_for_ever_is_refused_in_seconds() -> None:
    start = time.perf_counter()
    with pytest.raises(BadPattern):
        TargetedModules("([a-z._0-9]|[a-z]|[a-z.])*[0-9]_[0-9]").excluding_field(
            "model.layers.0.q_proj_and_a_long_tail"
        )
    assert time.perf_counter() - start < 10
