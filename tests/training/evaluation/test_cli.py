"""`lora-compose eval`: judges by option and by row, JSON on stdout, and refusals in one line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lora_compose.adapters.command_line import create_app
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.testbed.paths import ADAPTERS_DIR, BASE_DIR

ROLL = ["roll", "--adapter", f"roll={ADAPTERS_DIR / 'roll'}"]


def rows(file: Path, *given: dict[str, Any]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in given))
    return str(file)


def run(*options: str, base: Path = BASE_DIR) -> Result:
    return CliRunner().invoke(create_app(), ["eval", *options, "--model", str(base)])


def test_json_is_the_only_output_on_stdout_and_every_score_has_an_interval(tmp_path: Path) -> None:
    domain = rows(
        tmp_path / "domain.jsonl",
        {"prompt": "roll table", "completion": "ablet", "judge": "exact:case=ignore", "group": "short"},
        {"prompt": "roll horse", "completion": "contains", "contains": ["ORSE"], "judge": "contains"},
        {"prompt": "roll mint", "completion": "intm"},
    )
    general = ["--general", "testbed:general", "--limit", "10", "--text", "shipped", "--loss"]
    done = run(*ROLL, "--domain", domain, "--judge", "rouge-l", *general, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    scored = {"domain", "general", "forgetting", "perplexity:shipped", "forgetting:shipped"}
    assert scored <= found["intervals"].keys()
    assert found["scores"]["domain"] > 0.5
    assert found["scores"][f"group:short:{domain}"] == 1
    assert [task["judge"] for task in found["tasks"]] == ["by row", "exact"]
    low, high = found["intervals"]["forgetting"]
    assert low <= found["scores"]["forgetting"] <= high


def test_the_table_shows_the_judge_the_interval_and_the_paired_change(tmp_path: Path) -> None:
    file = rows(tmp_path / "j.jsonl", {"prompt": "roll table", "completion": '{"a": 1}'})
    done = run(*ROLL, "--domain", file, "--judge", "json-inside")
    assert "json-inside" in done.stdout
    assert "change since the base" in done.stdout
    assert "json_leaves" in done.stdout


def test_a_loss_as_judge_is_lower_is_better_for_requirements_too() -> None:
    loss = ["--domain", "testbed:roll", "--judge", "perplexity", "--limit", "5"]
    refused = run(*ROLL, *loss, "--require", "domain>=2")
    assert "lower is better. Write domain<=2" in str(refused.exception)
    assert run(*ROLL, *loss, "--require", "domain<=2").exit_code == 0


def broken_base(tmp_path: Path) -> Path:
    base = tmp_path / "broken"
    shutil.copytree(BASE_DIR, base)
    (base / "model.safetensors").write_bytes(b"\x00" * 100)
    return base


def test_what_a_person_can_cause_is_refused_in_one_line(tmp_path: Path) -> None:
    good = rows(tmp_path / "good.jsonl", {"prompt": "roll table", "completion": "ABLET"})
    unjudged = rows(tmp_path / "row.jsonl", {"prompt": "a", "completion": "b", "judge": "os:system"})
    mixed = rows(
        tmp_path / "mixed.jsonl",
        {"prompt": "a", "completion": "b"},
        {"prompt": "a", "completion": "b", "judge": "loss"},
    )
    long = rows(tmp_path / "long.jsonl", {"prompt": "roll table " * 2000, "completion": "ABLET"})
    (tmp_path / "empty.txt").write_text(" ")
    (tmp_path / "latin.txt").write_bytes("né".encode("latin-1"))
    cases: list[tuple[list[str], str]] = [
        (["--domain", good, "--judge", "jsn"], "unknown_judge"),
        (["--domain", good, "--judge", "json"], "cannot_judge"),
        (["--domain", good, "--judge", "numeric:near=1"], "bad_judge"),
        (["--domain", good, "--judge", f"{tmp_path}/none.py:f"], "bad_judge"),
        (["--domain", unjudged], "unknown_judge"),
        (["--domain", mixed], "cannot_judge"),
        (["--domain", long], "too_many_tokens"),
        (["--domain", long, "--loss", "--limit", "1", "--max-new-tokens", "1"], "too_many_tokens"),
        (["--domain", str(tmp_path / "none.jsonl")], "source_not_found"),
        (["--text", str(tmp_path / "none.txt")], "source_not_found"),
        (["--text", str(tmp_path / "empty.txt")], "no_rows"),
        (["--text", str(tmp_path / "latin.txt")], "not_utf8"),
        (["--domain", good, "--output", f"{good}/scores.json"], "output_not_written"),
        (["--domain", good, "--require", "general>=1"], "unknown_score"),
    ]
    for options, code in cases:
        refused = run(*options).exception
        assert isinstance(refused, LoraComposeError), (options, refused)
        assert refused.code == code
        assert "\n" not in str(refused)


def test_a_damaged_base_is_refused_in_one_line(tmp_path: Path) -> None:
    refused = run("--domain", "testbed:roll", base=broken_base(tmp_path)).exception
    assert isinstance(refused, LoraComposeError)
    assert refused.code == "base_not_loaded"
    assert "\n" not in str(refused)


@pytest.mark.parametrize("options", [["--limit", "0"], []])
def test_nothing_to_measure_is_a_usage_error(options: list[str]) -> None:
    assert run(*options).exit_code == 2
