"""Each config is admitted and answers as PEFT does, or it is refused for a reason that is true.

PEFT itself makes the weights and says what it loads. What PEFT loads and this product refuses is listed here.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftType
from safetensors.torch import load_file, save_file

from lora_compose.adapters.peft.files import WEIGHTS_FILE
from lora_compose.adapters.peft.kinds import KINDS
from lora_compose.training.testbed.paths import BASE_DIR
from tests.campaigns.configs.tensors import ACCEPTED, FOUND_IN_PART, IGNORED_BY_PEFT, NAMED, Tensors
from tests.campaigns.configs.trial import LARGEST_DIFFERENCE, Trial, Verdict
from tests.campaigns.configs.variants import PLAIN, Variant, variants

SEEN = json.loads((Path(__file__).with_name("configs") / "seen.json").read_text())

FEATURES = frozenset({
    "use_dora", "lora_bias", "bias", "modules_to_save", "trainable_token_indices", "layer_replication",
    "init_lora_weights", "use_qalora", "alora_invocation_tokens", "monteclora_config", "velora_config",
    "kasa_config", "peft_type", "use_tomorrow", "tomorrow_config",
})  # fmt: skip
"""PEFT computes something else than a low-rank sum with these fields, or may do so in a later release."""
NOT_AS_PEFT_WRITES = {
    "lora_alpha = True": "bad_alpha",
    "lora_alpha = nan": "bad_adapter_config",  # no JSON
    "target_modules = {'q_proj': 1}": "bad_adapter_config",
    "exclude_modules = [7]": "bad_adapter_config",
    "exclude_modules = {}": "bad_adapter_config",
    "layers_to_transform = [0.0]": "bad_adapter_config",
    "use_rslora = 1": "bad_adapter_config",
    "use_rslora = 0": "bad_adapter_config",
    "use_rslora = 'true'": "bad_adapter_config",
    "use_rslora = 'no'": "bad_adapter_config",
    "use_dora = 0": "bad_adapter_config",
    "lora_bias = 0": "bad_adapter_config",
    "use_dora = 'no'": "bad_adapter_config",
    "init_lora_weights = 0": "bad_adapter_config",
    "init_lora_weights = []": "bad_adapter_config",
    "init_lora_weights = {}": "bad_adapter_config",
    "base_model_name_or_path = 7": "bad_adapter_config",
    "base_model_name_or_path = []": "bad_adapter_config",
}
"""PEFT reads these values by chance. It never writes them."""
LIMITS_OF_THE_SERVER = {
    "r = 65": "rank_too_large",
    "rank_pattern = {'nothing': 65}": "rank_too_large",
    "lora_alpha = 1e+30": "bad_alpha",
    "alpha_pattern = {'q_proj': 1e+30}": "bad_alpha",
}
ON_EMBEDDINGS = ("['q_proj', 'lm_head']", "['embed_tokens']")


def has_other_terms(config: dict[str, Any]) -> bool:
    """Whether its answers are more than a sum of matrices. These tests compare only sums."""
    targets = config.get("target_modules")
    ends = {"lm_head", "embed_tokens"}
    on_ends = isinstance(targets, list) and not ends.isdisjoint(targets)
    return bool(config.get("use_dora") or config.get("lora_bias") or on_ends)


@pytest.fixture(scope="module")
def trial() -> Iterator[Trial]:
    """One thread: the products are tiny, and other processes may use the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Trial(BASE_DIR, "testbed-base")
    torch.set_num_threads(threads)


def verdict(trial: Trial, directory: Path, config: dict[str, Any]) -> Verdict:
    trial.write(directory, config)
    return trial.judge(directory)


def fault(variant: Variant, found: Verdict) -> str | None:
    """What is wrong with the verdict on a variant."""
    if found.admitted:
        if not found.peft_loads:
            return f"admitted, and PEFT says {found.peft_says}"
        if found.difference is not None and found.difference > LARGEST_DIFFERENCE:
            return None if has_other_terms(variant.config) else f"differs by {found.difference}"
        return None
    if not found.peft_loads or variant.name.endswith(ON_EMBEDDINGS):
        return None
    listed = NOT_AS_PEFT_WRITES | LIMITS_OF_THE_SERVER
    if found.code == listed.get(variant.name) or (
        found.code == "unsupported_feature" and found.param in FEATURES
    ):
        return None
    return f"PEFT loads it, and it is refused: {found.code} {found.message}"


@pytest.mark.parametrize("row", SEEN["configs"], ids=lambda row: row["id"])
def test_a_config_that_people_use(trial: Trial, tmp_path: Path, row: dict[str, Any]) -> None:
    config = row.get("config") or SEEN["variants_of"] | row["changes"]
    config = {field: value for field, value in config.items() if field not in row.get("left_out", ())}
    found = verdict(trial, tmp_path, config)
    assert found.admitted == (row["expected"] == "accept"), found
    if found.admitted and not has_other_terms(config):
        assert found.difference is not None
        assert found.difference <= LARGEST_DIFFERENCE


@pytest.mark.parametrize(
    "group",
    [list(group) for _, group in itertools.groupby(variants(), lambda v: v.group)],
    ids=lambda g: g[0].group,
)
def test_every_value_of_a_field(trial: Trial, tmp_path: Path, group: list[Variant]) -> None:
    wrong = {}
    for number, variant in enumerate(group):
        said = fault(variant, verdict(trial, tmp_path / str(number), variant.config))
        if said is not None:
            wrong[variant.name] = said
    assert wrong == {}


def test_every_kind_of_peft_has_its_words() -> None:
    assert {kind.value for kind in PeftType} == KINDS


def changed(trial: Trial, directory: Path, change: Callable[[Tensors], Tensors]) -> Verdict:
    """The verdict on PLAIN with other tensors."""
    trial.write(directory, PLAIN)
    tensors = change(load_file(directory / WEIGHTS_FILE))
    save_file(tensors, directory / WEIGHTS_FILE)
    return trial.judge(directory)


@pytest.mark.parametrize("name", ACCEPTED)
def test_a_file_that_peft_loads(trial: Trial, tmp_path: Path, name: str) -> None:
    found = changed(trial, tmp_path, ACCEPTED[name])
    assert found.admitted, found
    assert found.difference is not None
    assert found.difference <= LARGEST_DIFFERENCE


@pytest.mark.parametrize("name", IGNORED_BY_PEFT)
def test_a_file_whose_factors_peft_does_not_find(trial: Trial, tmp_path: Path, name: str) -> None:
    found = changed(trial, tmp_path, IGNORED_BY_PEFT[name])
    assert found.code in {"unknown_module", "unknown_layer"}, found
    assert found.peft_change == 0


@pytest.mark.parametrize("name", FOUND_IN_PART)
def test_a_file_with_other_tensors_too(trial: Trial, tmp_path: Path, name: str) -> None:
    found = changed(trial, tmp_path, FOUND_IN_PART[name])
    assert found.code in {"unknown_module", "unknown_layer"}, found


@pytest.mark.parametrize("name", NAMED)
def test_a_whole_state_dict_is_its_adapter(trial: Trial, tmp_path: Path, name: str) -> None:
    found = changed(trial, tmp_path, NAMED[name])
    assert found.admitted, found
    assert [warning.partition(":")[0] for warning in found.warnings] == ["adapter_name"]
    if name == "default":  # the name that PEFT gives to an adapter without one
        assert found.difference is not None
        assert found.difference <= LARGEST_DIFFERENCE
    else:
        assert found.peft_change == 0
