import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points, version
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from lora_compose.adapters.command_line import GROUP, create_app, load_command, main
from lora_compose.adapters.errors import LoraComposeError
from tests.adapters.http_server import closed_url


def imported_by(*arguments: str) -> set[str]:
    """The top-level modules that a process imports when it runs the command with `arguments`."""
    code = "import sys; from lora_compose.adapters.command_line import main\n"
    code += "try: main(sys.argv[1:])\nexcept SystemExit: pass\n"
    code += "print('\\n', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    return {module.partition(".")[0] for module in done.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["adapters", "list", "--url", closed_url()], ["serve", "--help"], ["ask", "--help"]],
)
def test_commands_that_need_no_engine_import_none(arguments: list[str]) -> None:
    assert not imported_by(*arguments) & {"torch", "vllm", "transformers", "openai", "sqlalchemy"}


def test_help_lists_every_installed_command() -> None:
    shown = CliRunner().invoke(create_app(), ["--help"])
    names = entry_points(group=GROUP).names
    assert {"adapters", "ask", "compose", "serve"} <= names
    assert all(f" {name} " in shown.output for name in names)


def test_version_is_the_installed_one() -> None:
    assert CliRunner().invoke(create_app(), ["--version"]).output.split()[-1] == version("lora-compose")


def test_a_typo_is_answered_with_the_command_meant() -> None:
    assert "Did you mean 'adapters'" in CliRunner().invoke(create_app(), ["adapter"]).output


def test_a_command_whose_module_is_missing_says_so_only_when_it_is_run() -> None:
    command = load_command(EntryPoint("broken", "no_such_extra.cli:app", GROUP))
    assert "no_such_extra" in command.get_short_help_str(200)
    with pytest.raises(LoraComposeError) as refusal:
        command(["--any", "thing"], standalone_mode=False)
    assert refusal.value.code == "command_unavailable"


def test_a_refusal_is_one_line_with_its_code() -> None:
    with pytest.raises(SystemExit) as end:
        main(["adapters", "show", "../etc"])
    assert isinstance(end.value.code, str)
    assert end.value.code.endswith("(invalid_name)")
    assert "\n" not in end.value.code


def test_an_error_says_the_next_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        main(["compose", "ties(a+b)", str(tmp_path / "out")])
    assert str(end.value.code).splitlines()[1].startswith("Use --density")


def test_every_command_but_serve_prints_json_on_request() -> None:
    def missing(command: Any, name: str) -> list[str]:
        if hasattr(command, "list_commands"):
            names = command.list_commands(None)
            return [
                m for inner in names for m in missing(command.get_command(None, inner), f"{name} {inner}")
            ]
        flags = {flag for parameter in command.params for flag in parameter.opts}
        return [] if "--json" in flags else [name.strip()]

    assert missing(get_command(create_app()), "") == ["serve"]


def test_the_help_does_not_show_a_type_for_options_without_a_value(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments in (
        ["--help"],
        ["keys", "--help"],
        ["train", "sft", "--help"],
        ["bench", "serve", "--help"],
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert "<bool>" not in capsys.readouterr().out


def test_the_help_of_training_lists_our_own_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "sft", "--help"])
    shown = capsys.readouterr().out
    assert all(flag in shown for flag in ("--domain", "--held-out-share", "--publish-url", "--require"))
