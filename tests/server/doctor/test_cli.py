import json
import subprocess
import sys
from pathlib import Path

import typer
from typer.testing import CliRunner

from lora_compose.server.doctor.cli import doctor
from lora_compose.training.testbed.paths import ADAPTERS_DIR

APP = typer.Typer()
APP.command()(doctor)


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(APP, arguments, env={"COLUMNS": "200"})
    return done.exit_code, done.output


def test_a_sound_installation_ends_with_0_and_json_holds_every_check(tmp_path: Path) -> None:
    code, output = run("--json", "--data-dir", str(tmp_path), "--adapter", str(ADAPTERS_DIR / "roll"))
    found = json.loads(output)
    assert (code, found["ok"]) == (0, True), found
    sections = {check["section"] for check in found["checks"]}
    assert sections == {"installation", "machine", "model", "adapter roll", "data"}
    assert all(check["advice"] for check in found["checks"] if check["status"] != "ok")


def test_one_failure_ends_with_1_and_the_table_says_what_to_do(tmp_path: Path) -> None:
    code, output = run("--data-dir", str(tmp_path), "--adapter", str(tmp_path))
    assert code == 1
    assert "(missing_config)" in output
    assert "-> Save the adapter again" in output
    assert "1 failed" in output


def test_help_imports_nothing_slow() -> None:
    code = "import sys, lora_compose.server.doctor.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {module.partition(".")[0] for module in done.stdout.split()}
    assert not imported & {"torch", "vllm", "transformers", "openai", "sqlalchemy"}


def test_help_teaches_by_examples() -> None:
    code, output = run("--help")
    assert code == 0
    assert output.count("lora-compose doctor") >= 4
