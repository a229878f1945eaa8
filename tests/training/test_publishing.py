"""A finished run is registered with its lineage, and the alias moves only if the requirements are met."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from lora_compose.adapters.admission.fingerprint import fingerprint
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.adapters.peft.files import WEIGHTS_FILE
from lora_compose.adapters.registry.registry import Registry
from lora_compose.training.publishing import ALL_ZERO, changes_nothing, publish
from lora_compose.training.recipe_options import PublishArguments
from lora_compose.training.run import FinishedRun, train
from tests.training.recipes import TASKS, recipe

MET, UNMET = "forgetting<=1,domain>=0", "domain>=0.99"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return train(recipe(tmp_path_factory.mktemp("published"), **TASKS))


def asked(tmp_path: Path, **fields: Any) -> PublishArguments:
    return PublishArguments(publish="roll", data_dir=str(tmp_path), **fields)


def test_a_version_keeps_where_it_came_from(run: FinishedRun, tmp_path: Path) -> None:
    assert publish(run, asked(tmp_path, alias="prod", require=MET)) == {
        "id": "roll@1",
        "alias": "prod",
        "unmet": [],
    }
    with Registry.open_readonly(tmp_path) as registry:
        version = registry.resolve("roll", "prod")
        training = version.lineage["training"]
    assert version.source == "train:sft"
    assert training["base_fingerprint"] == version.bases[0].fingerprint == fingerprint(Path(run.record.base))
    assert training["scores"] == run.scores
    assert training["data"][0]["source"] == "roll.jsonl"
    assert len(training["data"][0]["digest"]) == 64
    assert training["recipe"]["lora_r"] == 4


def test_an_alias_moves_only_where_the_requirements_hold(run: FinishedRun, tmp_path: Path) -> None:
    result = publish(run, asked(tmp_path, alias="prod", require=UNMET))
    assert (result["id"], result["alias"]) == ("roll@1", None)
    assert "domain>=0.99 is not met" in result["unmet"][0]
    with Registry.open_readonly(tmp_path) as registry:
        assert registry.aliases("roll") == {}
        assert registry.resolve("roll").lineage["training"]["missed"] == result["unmet"]


def test_without_an_alias_what_misses_them_is_not_registered(run: FinishedRun, tmp_path: Path) -> None:
    assert publish(run, asked(tmp_path, require=UNMET))["id"] is None
    assert not any(tmp_path.iterdir())


def test_an_adapter_of_zeros_is_not_registered(run: FinishedRun, tmp_path: Path) -> None:
    shutil.copytree(run.directory, tmp_path / "run")
    zeros = replace(run, directory=tmp_path / "run")
    copy = zeros.adapter
    tensors = load_file(copy / WEIGHTS_FILE)
    save_file({k: t * (0 if "lora_B" in k else 1) for k, t in tensors.items()}, copy / WEIGHTS_FILE)
    assert changes_nothing(copy)
    assert not changes_nothing(run.adapter)
    result = publish(zeros, asked(tmp_path / "data", alias="prod"))
    assert (result["id"], result["alias"], result["unmet"]) == (None, None, [ALL_ZERO])
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "fields", [{"publish": "a b"}, {"publish": "a", "alias": "7"}, {"publish": "a", "require": "domain"}]
)
def test_an_invalid_target_is_refused_before_training(fields: dict[str, Any]) -> None:
    with pytest.raises(LoraComposeError):
        PublishArguments(**fields).check()
