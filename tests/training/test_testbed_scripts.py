"""The three scripts run one after another, and the same seed gives the same weights."""

import json
from pathlib import Path

import pytest
import typer

from lora_compose.adapters.peft.files import FILES
from lora_compose.training.testbed import measure, pretrain, train_adapters

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("testbed")
    pretrain.main(output=directory / "base", steps=2, threads=1)
    train_adapters.main(
        ["roll", "upper"], base=directory / "base", output=directory / "trained", steps=2, threads=1
    )
    measure.main(base=directory / "base", adapters=directory / "trained", n=2)
    return directory


def test_the_scripts_leave_weights_and_one_record_of_what_was_done(home: Path) -> None:
    record = json.loads((home / "measured.json").read_text())
    assert set(record) == {"base", "adapters", "accuracy", "versions"}
    assert record["base"]["steps"] == record["adapters"]["roll"]["steps"] == 2
    assert set(record["accuracy"]["stacks"]) == {"roll", "upper", "roll+upper"}


def test_the_same_seed_gives_the_same_base_and_another_seed_another(home: Path, tmp_path: Path) -> None:
    for seed in (0, 1):
        pretrain.pretrain(pretrain.Pretraining(steps=2, seed=seed, threads=1), tmp_path / str(seed))
    same, other = ((tmp_path / seed / WEIGHTS).read_bytes() for seed in ("0", "1"))
    assert (home / "base" / WEIGHTS).read_bytes() == same != other


def test_the_same_seed_gives_the_same_adapter(home: Path, tmp_path: Path) -> None:
    train_adapters.main(["roll"], base=home / "base", output=tmp_path, steps=2, threads=1)
    for file in FILES:
        assert (tmp_path / "roll" / file).read_bytes() == (home / "trained" / "roll" / file).read_bytes()


def test_an_adapter_without_a_recipe_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(typer.BadParameter, match="sing"):
        train_adapters.main(["roll", "sing"], base=tmp_path, output=tmp_path)
    assert list(tmp_path.iterdir()) == []
