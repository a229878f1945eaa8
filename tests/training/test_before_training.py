"""What is found, shown and refused before the first step of a run."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.prepared_table import prepared_table
from lora_compose.training.run import prepare, train
from tests.training.recipes import HELD_OUT, PREFERENCES, recipe


def lines_of(record: Any) -> dict[str, str]:
    lines = (line.split("  ", 1) for line in prepared_table(record).splitlines())
    return {name.strip(): value.strip() for name, value in lines}


def answers(directory: Path, lengths: list[int]) -> dict[str, Any]:
    """Rows whose answers have so many letters. The toy's tokens are letters."""
    directory.mkdir(exist_ok=True)
    file = directory / "long.jsonl"
    rows = [
        {"prompt": f"say {'abcdefgh'[n % 8]}", "completion": "a" * length, "note": "x"}
        for n, length in enumerate(lengths)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"domain": [str(file)]}


def test_one_table_says_what_is_trained_on(tmp_path: Path) -> None:
    rows = answers(tmp_path, [5] * 30 + [80])
    with Path(rows["domain"][0]).open("a") as file:
        file.write('{"prompt": "say a", "completion": ""}\n')
    made = recipe(tmp_path, **rows, bad_rows="drop", max_length=40, max_steps=10, warmup_steps=2)
    table = lines_of(prepare(made).record)
    assert table["rows given"] == "32"
    assert table["dropped"].startswith("1 bad rows, 0 without")
    assert table["used"] == "31 to train, 0 held out"
    assert table["cut"].startswith("1 longer than max_length; the longest row has ")
    assert table["without an end"].startswith("1 ")
    assert table["columns left out"] == "note"
    assert table["tokens with a loss"].split()[0].isdecimal()
    assert table["end tokens"] == "</s>"
    assert table["a row, loss in ⟦⟧"].endswith("⟦aaaaa</s>⟧")
    assert table["steps"] == "10 of 8 rows, 2.5 epochs"
    assert table["learning rate"] == "0.002 after 2 steps of warm-up, 0.00025 at the last step"


SPOILED = [
    ({"max_length": 40}, "answers never end.*Set max_length to at least"),
    ({"warmup_steps": 6}, "The warm-up of 6 steps is not shorter than the run of 6"),
    ({"learning_rate": 0.0}, "learning_rate is 0"),
    ({"learning_rate": 2.0}, "learning_rate is 2"),
    ({"lora_alpha": 0}, "lora_alpha is 0"),
    ({"max_steps": 0}, "no steps"),
    ({"packing": True, "packing_strategy": "wrapped"}, "wrapped cuts answers"),
]


@pytest.mark.parametrize(("values", "reason"), SPOILED)
def test_what_spoils_a_run_stops_it_before_the_first_step(
    tmp_path: Path, values: dict[str, Any], reason: str
) -> None:
    rows = answers(tmp_path, [5] * 8 + [80] * 8)
    with pytest.raises(LoraComposeError, match=rf"(?s)\n- .*{reason}.*--force") as refused:
        train(recipe(tmp_path, **rows, **values))
    assert refused.value.code == "run_spoiled"
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_forced_run_starts_and_is_recorded(tmp_path: Path) -> None:
    run = train(recipe(tmp_path, warmup_steps=6), force=True)
    assert "warm-up of 6 steps" in json.loads((run.directory / "run.json").read_text())["forced"][0]


def test_half_of_the_rows_dropped_stops_a_run(tmp_path: Path) -> None:
    rows = answers(tmp_path, [5] * 8)
    with Path(rows["domain"][0]).open("a") as file:
        file.write('{"prompt": "say a", "completion": ""}\n' * 8)
    with pytest.raises(LoraComposeError, match="8 of 16 rows are dropped as bad"):
        train(recipe(tmp_path, **rows, bad_rows="drop"))


def test_prompts_that_fill_the_limit_stop_dpo(tmp_path: Path) -> None:
    with pytest.raises(LoraComposeError, match=r"prompts fill max_length \(12\)"):
        train(recipe(tmp_path, "dpo", **PREFERENCES, max_length=12))


def test_pairs_of_equal_answers_stop_dpo(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"prompt": "say a", "chosen": "a", "rejected": "a"}\n' * 8)
    with pytest.raises(LoraComposeError, match="the same in 8 of 8 pairs"):
        train(recipe(tmp_path, "dpo", domain=[str(file)]))


def test_rows_that_are_held_out_and_trained_on_stop_a_run(tmp_path: Path) -> None:
    with pytest.raises(LoraComposeError, match="200 of 200 held-out rows are also trained on"):
        train(recipe(tmp_path, domain=HELD_OUT, held_out=HELD_OUT, eval_strategy="steps"))


def test_a_few_long_rows_and_less_than_an_epoch_do_not_stop_a_run(tmp_path: Path) -> None:
    run = prepare(recipe(tmp_path, **answers(tmp_path, [5] * 60 + [80]), max_length=40, max_steps=2))
    assert run.spoiled == ()


def test_packed_rows_are_counted_as_they_were_given(tmp_path: Path) -> None:
    rows = answers(tmp_path, [5] * 24)
    record = prepare(recipe(tmp_path, **rows, packing=True, max_length=64)).record
    assert record.prepared is not None
    assert record.prepared.rows < 24
    assert (record.prepared.left_out, record.prepared.endless, record.prepared.cut) == (0, 0, 0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_do_not_read_each_other(tmp_path: Path, attention: str) -> None:
    made = recipe(tmp_path, packing=True, max_length=64, attn_implementation=attention)
    trainer = prepare(made).trainer
    model = trainer.model.eval()
    batch = next(iter(trainer.get_train_dataloader()))
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        packed = model(**inputs).logits[0]
        begins = (batch["position_ids"][0] == 0).nonzero()[:, 0].tolist()
        for start, end in pairwise([*begins, packed.shape[0]]):
            alone = model(input_ids=batch["input_ids"][:, start:end]).logits[0]
            assert torch.allclose(packed[start:end], alone, atol=1e-4)
    assert len(begins) > 8
