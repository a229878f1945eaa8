"""`lora-compose compositions` and the warnings of `compose`, as a person sees them."""

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from lora_compose.adapters.cli import warnings_of
from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.export import find_members
from lora_compose.server.client.compositions_command import app
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.server.app_without_engine import app_without_engine, register_shipped


def run(url: str, *words: str) -> Result:
    return CliRunner().invoke(app, [*words, "--url", url])


def test_a_composition_is_saved_with_its_warning_and_listed_with_its_build(tmp_path: Path) -> None:
    with app_without_engine(tmp_path) as server, server.client() as client:
        register_shipped(client, ["bang", "polite"])
        saved = run(server.url, "save", "both", "bang+polite")
        assert saved.exit_code == 0
        assert "Saved both as bang@1+polite@1, rank 16, ready" in saved.output
        assert "Warning: The deltas of bang and polite" in saved.stderr
        assert "Try first: bang:0.72+polite:0.72" in saved.stderr
        dry = run(server.url, "save", "other", "svd(bang+polite)", "--dry-run", "--json")
        assert json.loads(dry.stdout)["warnings"][0]["code"] == "same_directions"
        assert [word in run(server.url, "list").output for word in ("both", "bang+polite", "ready")] == [
            True
        ] * 3
        assert run(server.url, "remove", "both").exit_code == 0
        assert "No composition is saved" in run(server.url, "list").output


def test_compose_without_a_server_gives_the_same_warnings(tmp_path: Path) -> None:
    directories = {name: ADAPTERS_DIR / name for name in ("bang", "polite")}
    parsed = parse("bang+polite")
    (warning,) = warnings_of(parsed, find_members(parsed, directories, tmp_path))
    assert (warning["code"], warning["suggested"]) == ("same_directions", "bang:0.72+polite:0.72")
