"""`train init`: a recipe for a person's own rows, which runs as it is written."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from lora_compose.adapters.command_line import main
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.data.labels import LabelRule
from lora_compose.training.first_recipe import EMBEDDED_BASE, Suggestion, suggest
from lora_compose.training.first_recipe_text import recipe_text
from lora_compose.training.recipe import read_recipe
from lora_compose.training.run import prepare


def table(directory: Path, header: list[str], rows: list[list[Any]]) -> str:
    file = directory / "my rows.csv"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([header, *rows])
    return str(file)


def suggested(source: str, rule: LabelRule | None = None) -> Suggestion:
    return suggest(source, str(EMBEDDED_BASE), rule or LabelRule(), "stop")


def words(count: int) -> list[str]:
    return [f"{a}{b}{c}" for a in "abcdefgh" for b in "ijklm" for c in "nopqr"][:count]


def test_a_table_of_a_person_becomes_a_recipe_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    table(tmp_path, ["Prompt", "Completion", "id"], [[f"say {w}", w, 1] for w in words(60)])
    with pytest.raises(SystemExit) as ended:
        main(["train", "init", "my rows.csv"])
    assert ended.value.code in (0, None)
    said = capsys.readouterr().out
    assert "Next: lora-compose train sft" in said
    run = prepare(read_recipe("sft", tmp_path / "my rows-adapter" / "recipe.yaml"))
    assert run.spoiled == ()
    assert (run.record.data.train_rows, run.record.data.held_out_rows) == (54, 6)
    assert run.record.prepared is not None
    assert run.record.prepared.schedule is not None
    assert run.record.prepared.schedule.warmup_steps < run.record.prepared.schedule.steps
    assert run.record.settings.model["lora_r"] == 8
    assert not run.recipe.training.gradient_checkpointing


def test_rows_decide_the_method(tmp_path: Path) -> None:
    pairs = [[f"say {w}", w, w.upper()] for w in words(20)]
    assert suggested(table(tmp_path, ["prompt", "chosen", "rejected"], pairs)).method == "dpo"
    marked = [[f"say {w}", w, n % 2] for n, w in enumerate(words(20))]
    assert suggested(table(tmp_path, ["prompt", "completion", "label"], marked)).method == "kto"
    rated = table(
        tmp_path,
        ["prompt", "response", "stars"],
        [[f"say {w}", w, n % 2 * 4 + 1] for n, w in enumerate(words(20))],
    )
    plain = suggested(rated)
    assert plain.method == "sft"
    assert "again with --label-column stars and --good-from" in plain.notes[-1]
    found = suggested(rated, LabelRule(good_from=4))
    assert found.method == "kto"
    assert sum(found.train["label"]) + sum(found.held_out["label"]) == 10


@pytest.mark.parametrize(
    "method_columns", [["prompt", "chosen", "rejected"], ["prompt", "completion", "label"]]
)
def test_recipes_of_preferences_can_be_read(tmp_path: Path, method_columns: list[str]) -> None:
    rows = [[f"say {w}", w, n % 2 if "label" in method_columns else "x"] for n, w in enumerate(words(20))]
    made = suggested(table(tmp_path, method_columns, rows))
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe_text(made, tmp_path))
    recipe = read_recipe(made.method, file)
    assert recipe.training.learning_rate == pytest.approx(1.1e-4)
    assert recipe.training.per_device_train_batch_size >= 2


def test_no_prompt_is_both_trained_on_and_held_out(tmp_path: Path) -> None:
    rows = [[f"say {words(30)[n % 30]}", f"{n}"] for n in range(90)]
    made = suggested(table(tmp_path, ["prompt", "completion"], rows))
    prompts = [{json.dumps(row["prompt"]) for row in part} for part in (made.train, made.held_out)]
    assert not prompts[0] & prompts[1]
    assert len(made.held_out) == 9


@pytest.mark.parametrize(
    ("answers", "judge"),
    [
        (['{"a": 1}', '{"b": 2}'], "json"),
        (["12", "-3.5"], "numeric"),
        (["two words", "one"], "exact"),
        (["a very long answer that no person could repeat letter by letter"] * 2, None),
    ],
)
def test_the_judge_fits_the_answers(tmp_path: Path, answers: list[str], judge: str | None) -> None:
    rows = [[f"say {w}", answers[n % len(answers)]] for n, w in enumerate(words(40))]
    made = suggested(table(tmp_path, ["prompt", "completion"], rows))
    assert made.judge == judge
    assert (f"judge: {judge}" in recipe_text(made, tmp_path)) == (judge is not None)


def test_a_few_rows_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoraComposeError, match=r"has 3 rows\. At least 10 are needed") as refused:
        suggested(table(tmp_path, ["prompt", "completion"], [[f"say {w}", w] for w in words(3)]))
    assert refused.value.code == "too_few_rows"


def test_a_recipe_is_not_overwritten(tmp_path: Path) -> None:
    source = table(tmp_path, ["prompt", "completion"], [[f"say {w}", w] for w in words(20)])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "recipe.yaml").write_text("")
    with pytest.raises(SystemExit, match="output_exists"):
        main(["train", "init", source, "--output", str(tmp_path / "out")])
