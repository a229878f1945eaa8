"""The options of the `bench` commands, and what they print."""

import json
from dataclasses import fields
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup, TyperOption
from typer.testing import CliRunner

from lora_compose.benchmarks.serving.cli import app
from lora_compose.benchmarks.serving.results.plan import Plan
from tests.benchmarks.serving.made_results import result

WITHOUT_OPTION = {"pool", "heat_members"}


def group() -> TyperGroup:
    found = typer.main.get_command(app)
    assert isinstance(found, TyperGroup)
    return found


def options() -> dict[str, TyperOption]:
    return {one.name or "": one for one in group().commands["serve"].params if isinstance(one, TyperOption)}


def test_every_field_of_the_plan_is_an_option_with_help_and_the_field_s_default() -> None:
    found = options()
    for field in fields(Plan):
        if field.name in WITHOUT_OPTION:
            assert field.name not in found
            continue
        default = getattr(Plan(), field.name)
        shown = ",".join(map(str, default)) if isinstance(default, tuple) else default
        assert (found[field.name].default, found[field.name].opts) == (
            shown,
            [f"--{field.name.replace('_', '-')}"],
        )
        assert found[field.name].help


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A result with little noise."""
    path = tmp_path / "bench.json"
    document = result({"base": 0.100, "stack:2": 0.120, "merge:2": 0.110}, noise=0.001)
    path.write_text(json.dumps(document.to_json()))
    return str(path)


def test_every_command_takes_json() -> None:
    for name, command in group().commands.items():
        assert "--json" in {option for one in command.params for option in one.opts}, name


@pytest.mark.parametrize("command", ["report", "advise", "ratios", "compare"])
def test_json_is_all_that_is_printed(command: str, file: str) -> None:
    files = [file, file] if command == "compare" else [file]
    done = CliRunner().invoke(app, [command, *files, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)
    assert done.stderr == ""


def test_a_noisy_result_has_no_way_its_reasons_and_exit_code_1(file: str) -> None:
    content = json.loads(Path(file).read_text())
    Path(file).write_text(json.dumps(content | {"others_busy": [0.4, 0.5, 0.6]}))
    done = CliRunner().invoke(app, ["advise", file, "--json"])
    facts = json.loads(done.stdout)
    assert (done.exit_code, facts["way"], len(facts["noise"])) == (1, None, 1)
    assert "Other programs used 50 %" in facts["noise"][0]


@pytest.mark.parametrize("options", [["--json", "--progress", "json"], ["--progress", "dots"]])
def test_two_uses_of_stdout_and_an_unknown_progress_are_refused(options: list[str]) -> None:
    assert CliRunner().invoke(app, ["serve", *options]).exit_code == 2
