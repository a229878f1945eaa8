"""The command `lora-compose data`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lora_compose.adapters.command_line import create_app
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.testbed.paths import BASE_DIR, DATA_DIR

ROLL, GENERAL = str(DATA_DIR / "roll-held-out.jsonl"), str(DATA_DIR / "general-held-out.jsonl")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(create_app(), ["data", *map(str, arguments)], catch_exceptions=False)


def test_inspect_reports_and_changes_nothing() -> None:
    before = Path(ROLL).read_bytes()
    found = json.loads(run("inspect", ROLL, "--json").stdout)
    assert (found["form"], found["rows"], found["exact duplicates"]) == ("instruction", 200, 0)
    assert Path(ROLL).read_bytes() == before
    assert "right by length alone" in run("inspect", DATA_DIR / "upper-preferred-held-out.jsonl").stdout


def test_curate_writes_rows_and_a_report_and_the_second_time_the_same_rows(tmp_path: Path) -> None:
    raw = tmp_path / "raw.jsonl"
    lines = [{"prompt": "write to a@b.com", "completion": "done"}] * 2
    raw.write_text("\n".join(map(json.dumps, lines)))
    report = json.loads(run("curate", raw, tmp_path / "one.jsonl", "--json").stdout)
    assert (report["rows"], report["left"]) == (2, 1)
    assert "<EMAIL_1>" in (tmp_path / "one.jsonl").read_text()
    assert (
        json.loads((tmp_path / "one.jsonl.report.json").read_text())["left_digest"] == report["left_digest"]
    )
    run("curate", tmp_path / "one.jsonl", tmp_path / "two.jsonl")
    assert (tmp_path / "two.jsonl").read_text() == (tmp_path / "one.jsonl").read_text()


def test_rows_that_are_marked_as_good_or_bad_are_inspected_and_curated(tmp_path: Path) -> None:
    raw, one, two = (tmp_path / f"{name}.jsonl" for name in ("raw", "one", "two"))
    rows = [
        {"prompt": f"write to {n}@b.com", "completion": f"answer {n}", "stars": n} for n in (1, 2, 4, 5, 5)
    ]
    raw.write_text("\n".join(map(json.dumps, rows)))
    found = json.loads(run("inspect", raw, "--good-from", "4", "--json").stdout)
    assert (found["form"], found["good answers"], found["bad answers"]) == ("unpaired", 3, 2)
    run("curate", raw, one, "--good-from", "4")
    assert [json.loads(line)["label"] for line in one.read_text().splitlines()] == [False, False, True, True]
    run("curate", one, two)
    assert one.read_text() == two.read_text()


def test_a_leak_is_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(LoraComposeError) as refused:
        run("curate", ROLL, tmp_path / "out.jsonl", "--against", ROLL)
    assert refused.value.code == "leaked"
    assert not any(tmp_path.iterdir())
    assert (
        "0 written" in run("curate", ROLL, tmp_path / "out.jsonl", "--against", ROLL, "--drop-leaks").stdout
    )


def test_an_output_is_not_overwritten_without_the_option(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(LoraComposeError, match="--force"):
        run("curate", ROLL, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_text() == "mine"


@pytest.mark.parametrize("by", ["examples", "tokens"])
def test_a_mix_has_the_ratio_it_was_asked_for(tmp_path: Path, by: str) -> None:
    common = ("--general", GENERAL, "--domain", ROLL, "--ratio", "8:2", "--by", by, "--model", BASE_DIR)
    general, domain = json.loads(run("mix", tmp_path / "mix.jsonl", *common, "--json").stdout)
    assert general["share"] == pytest.approx(0.8, abs=0.01)
    assert domain["share"] == pytest.approx(0.2, abs=0.01)
    first = (tmp_path / "mix.jsonl").read_text()
    run("mix", tmp_path / "mix.jsonl", *common, "--force")
    assert (tmp_path / "mix.jsonl").read_text() == first
    assert len(first.splitlines()) == general["examples"] + domain["examples"]


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--ratio", "8"), "invalid_ratio"),
        (("--ratio", "0:0"), "invalid_ratio"),
        (("--ratio", "1:1", "--total", "1000"), "too_few_rows"),
        (("--ratio", "1:1", "--by", "tokens"), "invalid_mix"),
    ],
)
def test_an_impossible_mix_is_refused(tmp_path: Path, options: tuple[str, ...], code: str) -> None:
    with pytest.raises(LoraComposeError) as refused:
        run("mix", tmp_path / "mix.jsonl", "--general", GENERAL, "--domain", ROLL, *options)
    assert refused.value.code == code
