import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points, version

import pytest
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
