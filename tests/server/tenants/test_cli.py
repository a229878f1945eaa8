"""`lora-compose keys`: reading writes nothing, and a new secret comes with how to use it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lora_compose.adapters.errors import NotFound
from lora_compose.server.tenants.cli import app


def test_listing_a_directory_that_does_not_exist_makes_none(tmp_path: Path) -> None:
    directory = tmp_path / "typo"
    done = CliRunner().invoke(app, ["list", "--data-dir", str(directory)])
    assert done.exit_code == 0
    assert "There is no registry" in done.stderr
    for command in ("rotate", "revoke"):
        done = CliRunner().invoke(app, [command, "acme", "--data-dir", str(directory)])
        assert isinstance(done.exception, NotFound)
    assert not directory.exists()


def test_a_new_secret_is_alone_on_stdout_and_its_use_is_said(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["create", "acme", "--data-dir", str(tmp_path)])
    assert done.stdout.startswith("lc-")
    assert len(done.stdout.splitlines()) == 1
    assert "LORA_COMPOSE_API_KEY" in done.stderr
    assert "requires a key from now on" in done.stderr


@pytest.mark.parametrize("name", ["acme"])
def test_revoking_prints_json_on_request(tmp_path: Path, name: str) -> None:
    CliRunner().invoke(app, ["create", name, "--data-dir", str(tmp_path)])
    done = CliRunner().invoke(app, ["revoke", name, "--data-dir", str(tmp_path), "--json"])
    found = json.loads(done.stdout)
    assert (found["revoked"], found["was_last"]) == (name, True)
    opened = CliRunner().invoke(app, ["open", "--data-dir", str(tmp_path), "--json"])
    assert json.loads(opened.stdout) == {"was_closed": True}
