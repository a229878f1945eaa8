import inspect
import re
import shlex
from collections.abc import Callable
from dataclasses import Field, fields
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.core import TyperOption
from typer.testing import CliRunner

from lora_compose.adapters.dataclass_options import options_from
from lora_compose.server.cli import ServeCommand, serve_app
from lora_compose.server.config import ServerConfig
from lora_compose.server.fusion.policy import FusePolicySettings
from lora_compose.server.options.catalogue import options
from lora_compose.server.options.command_line import split
from lora_compose.server.options.http_options import HttpOptions

ROOT = Path(__file__).resolve().parents[2]
FUSE_VALUES = {
    "half-life-seconds": 11,
    "min-dwell-seconds": 12,
    "margin": 13,
    "min-share": 0.7,
    "min-tokens": 14,
    "budget": 0.1,
}
VLLM_WORDS = st.sampled_from([
    ["--max-loras=8"],
    ["--dtype=float32"],
    ["--tensor-parallel-size=2"],
    ["--optimization-level=3"],
    ["--enforce-eager"],
    ['--hf-overrides={"a": 1}'],
    ["--cudagraph-capture-sizes", "1", "2"],
])
OUR_WORDS = [["--port", "9001"], ["--strict"], ["--model", "org/m"], ["--adapter-root", "x"]]


def read(arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
    """The arguments for vLLM, and the values of our own options, without running the command."""
    context = typer.main.get_command(serve_app).make_context("serve", list(arguments))
    return context.args, context.params


def options_of(config: type[Any], prefix: str = "") -> list[tuple[Field[Any], TyperOption]]:
    """Each field of a dataclass with its option of `serve`."""
    options = {option.name: option for option in typer.main.get_command(serve_app).params}
    found = []
    for field in fields(config):
        if field.name not in {"fuse_settings", "http"}:
            option = options[f"{prefix}{field.name}"]
            assert isinstance(option, TyperOption)
            found.append((field, option))
    return found


@pytest.mark.parametrize(
    ("config", "prefix"), [(ServerConfig, ""), (FusePolicySettings, "fuse_"), (HttpOptions, "")]
)
def test_every_field_of_the_config_is_an_option_with_its_docs_and_default(
    config: type[Any], prefix: str
) -> None:
    source = " ".join(inspect.getsource(config).split())
    for field, option in options_of(config, prefix):
        assert option.help
        assert f'"""{option.help.removesuffix(" Repeatable.")}"""' in source
        default = getattr(config(), field.name)
        if option.multiple:
            assert option.default is None  # `options_from` then leaves the field's own default
        else:
            assert option.default == (",".join(default) if field.metadata.get("separator") else default)


def test_what_is_given_is_what_the_config_gets(tmp_path: Path) -> None:
    seen: list[ServerConfig] = []
    app = typer.Typer()
    app.command()(options_from(ServerConfig)(seen_by(seen)))
    numbers = ["--port", "1", "--admin-port", "2", "--hang-seconds", "3", "--max-adapter-bytes", "4"]
    texts = ["--host", "h", "--admin-host", "a", "--log-format", "json", "--model", "org/m"]
    lists = ["--adapter-root", str(tmp_path), "--adapter-root", "/", "--api-key", "k1", "--api-key", "k2"]
    switches = ["--allow-hf", "--strict", "--lora-requests-info", "--auto-fuse"]
    fuse = [word for name in FUSE_VALUES for word in (f"--fuse-{name}", str(FUSE_VALUES[name]))]
    words = [*numbers, *texts, *lists, *switches, *fuse, "--data-dir", "d"]
    assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
    assert seen == [
        ServerConfig(
            model="org/m",
            host="h",
            port=1,
            data_dir=Path("d"),
            adapter_roots=(tmp_path, Path("/")),
            allow_hf=True,
            strict=True,
            api_keys=("k1", "k2"),
            admin_port=2,
            admin_host="a",
            hang_seconds=3,
            log_format="json",
            lora_requests_info=True,
            max_adapter_bytes=4,
            auto_fuse=True,
            fuse_settings=FusePolicySettings(11, 12, 13, 0.7, 14, 0.1),
        )
    ]


def seen_by(seen: list[ServerConfig]) -> Callable[..., None]:
    """A command that keeps its config in `seen`."""

    def command(config: ServerConfig) -> None:
        seen.append(config)

    return command


@given(st.lists(VLLM_WORDS, unique_by=lambda words: words[0]), st.data())
def test_what_is_not_ours_goes_on_to_vllm_in_order(blocks: list[list[str]], data: st.DataObject) -> None:
    mixed = [*blocks]
    for ours in OUR_WORDS:
        mixed.insert(data.draw(st.integers(0, len(mixed))), ours)
    left, taken = read([word for block in mixed for word in block])
    assert left == [word for block in blocks for word in block]
    assert (taken["port"], taken["strict"], taken["model"]) == (9001, True, "org/m")


def test_vllms_way_to_name_the_model_and_the_keys() -> None:
    left, taken = read(["org/m", "--api-key", "k1", "k2", "--api_key=k3", "--max_loras", "4"])
    assert (left, taken["model"], taken["api_keys"]) == (["--max-loras=4"], "org/m", ["k1", "k2", "k3"])


def test_a_wrong_option_is_two_lines_and_exit_code_2() -> None:
    for word in ("--max-lora", "--dtype=float23", "--log-format=jsn", "--headless", "--port=x"):
        result = CliRunner().invoke(serve_app, [word])
        assert (result.exit_code, len(result.output.splitlines())) == (2, 2)
        assert result.output.startswith("error: ")
        assert "--help" in result.output


def test_a_variable_of_vllm_that_would_do_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    result = CliRunner().invoke(serve_app, [])
    assert (result.exit_code, "VLLM_SERVER_DEV_MODE=1" in result.output) == (2, True)


def test_vllms_variable_for_idle_connections_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "30")
    assert read([])[1]["keep_alive_seconds"] == 30


def test_help_with_a_word_lists_vllms_options_with_it() -> None:
    shown = CliRunner().invoke(serve_app, ["--help=data-parallel-size"]).output.splitlines()
    assert [line.split()[0] for line in shown] == [
        "--data-parallel-size/-dp",
        "--data-parallel-size-local/-dpl",
    ]
    assert all("**refused** unless 1" in line for line in shown)
    assert len(CliRunner().invoke(serve_app, ["--help=all"]).output.splitlines()) == len(options())


def test_several_keys_come_from_one_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_COMPOSE_API_KEY", "one two")
    assert read([])[1]["api_keys"] == ["one", "two"]


def test_a_config_that_cannot_work_is_one_line_and_exit_code_2() -> None:
    result = CliRunner().invoke(serve_app, ["--port", "99999"])
    assert result.exit_code == 2
    assert result.output == "error: --port (99999) must be between 1 and 65535\n"


def test_help_names_the_options_of_vllm_that_matter() -> None:
    shown = CliRunner().invoke(serve_app, ["--help"], env={"COLUMNS": "200"}).output
    for option in ("--max-loras", "--max-lora-rank", "--max-cpu-loras", "--served-model-name", "--dtype"):
        assert option in shown


def test_every_command_in_the_docs_has_options_that_exist() -> None:
    files = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    pattern = r"^(?:\.venv/bin/)?lora-compose serve( .*)"
    lines = [line for file in files for line in re.findall(pattern, file.read_text(), re.MULTILINE)]
    command = typer.main.get_command(serve_app)
    assert isinstance(command, ServeCommand)
    assert lines
    for line in lines:
        split(shlex.split(line, comments=True), command.own_options)
