"""What a run scores: by the judge of its recipe, with intervals, before and after on the same questions."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lora_compose.adapters.command_line import create_app
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.run import prepare, train
from lora_compose.training.run_record import read_record
from lora_compose.training.run_report import run_table
from tests.training.recipes import HELD_OUT, TASKS, recipe, written


def test_a_run_is_scored_by_its_judge_with_intervals_and_the_paired_change(tmp_path: Path) -> None:
    judges = {"judge": "loss", "general_judge": "chrf", "general_text": ["shipped"]}
    run = train(recipe(tmp_path, **{**TASKS, **judges, "score_limit": 8}))
    record = run.record
    assert record.lower_is_better == ["domain", "perplexity:shipped"]
    assert record.scores["domain"] < record.base_scores["domain"]
    assert {*record.scores} == {*record.intervals}
    assert {*record.scores} - {*record.base_scores} == {"forgetting", "forgetting:shipped"}
    change, (low, high) = record.changes["domain"]
    assert change == pytest.approx(record.scores["domain"] - record.base_scores["domain"])
    assert low <= change <= high < 0
    assert read_record(run.directory) == record
    assert run_table(record).row_count >= 5


def test_the_best_checkpoint_by_a_loss_is_the_lowest(tmp_path: Path) -> None:
    by_domain = {"metric_for_best_model": "eval_domain", "eval_strategy": "steps", "held_out": HELD_OUT}
    scored = {**TASKS, **by_domain, "score_each_evaluation": True, "score_limit": 4}
    for judge, is_greater in (("loss", False), ("exact", True)):
        made = prepare(recipe(tmp_path, **scored, judge=judge))
        assert made.trainer.args.greater_is_better is is_greater


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"judge": "json"}, "cannot_judge"),
        ({"judge": "jsn"}, "unknown_judge"),
        ({"general_judge": "none.py:judge"}, "bad_judge"),
        ({"require": "accuracy>=0.9"}, "unknown_score"),
        ({"require": "domain>=2", "judge": "loss"}, "invalid_requirement"),
        ({"general_text": ["none.txt"]}, "source_not_found"),
    ],
)
def test_a_score_that_cannot_be_is_refused_before_the_first_step(
    tmp_path: Path, values: dict[str, object], code: str
) -> None:
    with pytest.raises(LoraComposeError) as refused:
        train(recipe(tmp_path, **{**TASKS, **values}))
    assert refused.value.code == code
    assert not (tmp_path / "run" / "adapter").exists()


def test_training_prints_only_json_on_stdout(tmp_path: Path) -> None:
    file = written(tmp_path, **{**TASKS, "score_limit": 4}, max_steps=2, disable_tqdm=False)
    done = CliRunner().invoke(create_app(), ["train", "sft", str(file), "--json"])
    assert done.exit_code == 0, done.output
    assert "domain" in json.loads(done.stdout)["scores"]
