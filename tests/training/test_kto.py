"""KTO: good and bad answers without pairs, on the embedded base."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.run import prepare, train
from lora_compose.training.testbed.paths import ADAPTERS_DIR, DATA_DIR
from tests.training.recipes import recipe

RATED: dict[str, Any] = {"domain": [str(DATA_DIR / "upper-rated.jsonl")], "rows": 64}


def of_labels(directory: Path, labels: list[bool]) -> dict[str, Any]:
    directory.mkdir(exist_ok=True)
    file = directory / "rated.jsonl"
    rows = [
        {"prompt": f"roll {'abcdefghij'[n % 10]}x", "completion": "xa", "label": good}
        for n, good in enumerate(labels)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"domain": [str(file)]}


@pytest.mark.parametrize("reference", ["start", "base"])
def test_a_run_goes_on_from_an_adapter_and_leaves_one(tmp_path: Path, reference: str) -> None:
    start: dict[str, Any] = {"init_adapter": str(ADAPTERS_DIR / "roll"), "reference": reference}
    run = train(recipe(tmp_path, "kto", **RATED, **start, learning_rate=1e-3, max_steps=3))
    assert sorted(path.name for path in run.adapter.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert run.record.method == "kto"
    assert run.record.prepared is not None
    assert (run.record.prepared.good or 0) + (run.record.prepared.bad or 0) == 64
    first = run.record.history[0]
    margin = abs(first["rewards/chosen"])
    assert (margin < 1e-4) == (reference == "start")
    assert "kl" in first


def test_labels_are_balanced_by_their_numbers_unless_weights_are_set(tmp_path: Path) -> None:
    rows = of_labels(tmp_path, [True] * 12 + [False] * 4)
    run = prepare(recipe(tmp_path / "a", "kto", **rows))
    training = run.record.settings.training
    assert (training["desirable_weight"], training["undesirable_weight"]) == (1.0, 3.0)
    assert "12 good and 4 bad answers are balanced" in run.record.resolved[0]
    own = prepare(recipe(tmp_path / "b", "kto", **rows, desirable_weight=2.0)).record
    assert (own.settings.training["desirable_weight"], own.resolved) == (2.0, [])


def test_a_last_batch_of_one_row_is_left_out(tmp_path: Path) -> None:
    run = prepare(recipe(tmp_path / "a", "kto", **of_labels(tmp_path, [True, False] * 8 + [True])))
    assert run.record.data.train_rows == 16


@pytest.mark.parametrize(("good", "advice"), [(True, "train sft"), (False, "add good answers")])
def test_answers_of_one_kind_are_refused(tmp_path: Path, good: bool, advice: str) -> None:
    with pytest.raises(LoraComposeError, match=advice) as refused:
        prepare(recipe(tmp_path, "kto", **of_labels(tmp_path, [good] * 9)))
    assert refused.value.code == "wrong_form"


def test_a_batch_of_one_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LoraComposeError, match="must be at least 2") as refused:
        recipe(tmp_path, "kto", **RATED, per_device_train_batch_size=1)
    assert refused.value.code == "invalid_recipe"
    recipe(tmp_path, "kto", **RATED, per_device_train_batch_size=1, loss_type="apo_zero_unpaired")


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_other_methods_name_kto_for_such_rows(tmp_path: Path, method: Any) -> None:
    with pytest.raises(LoraComposeError, match="lora-compose train kto"):
        prepare(recipe(tmp_path, method, **RATED))
