from dataclasses import fields
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.core import TyperOption
from typer.testing import CliRunner

from adapters.fuse_settings import Settings
from server.cli import serve_app
from server.config import ServerConfig
from server.field_docs import field_docs

REPEATABLE = {"adapter_roots": "adapter_root", "api_keys": "api_key"}
VLLM_WORDS = st.sampled_from([
    "--max-loras",
    "8",
    "--dtype=float32",
    "-tp",
    "2",
    "-O3",
    "--enable-x",
    '{"a": 1}',
    "key=a b",
    "x/y",
])
OUR_WORDS = [["--port", "9001"], ["--strict"], ["--model", "org/m"], ["--adapter-root", "x"]]


def read(arguments: list[str]) -> tuple[list[str], dict[str, Any]]:
    """What the command leaves to vLLM and what it takes, before it does anything."""
    context = typer.main.get_command(serve_app).make_context("serve", list(arguments))
    return context.args, context.params


def test_every_field_of_the_config_is_an_option_with_its_docs_and_default() -> None:
    options = {option.name: option for option in typer.main.get_command(serve_app).params}
    defaults, docs = ServerConfig(), field_docs(ServerConfig)
    names = {field.name: REPEATABLE.get(field.name, field.name) for field in fields(ServerConfig)}
    del names["fuse_settings"]
    for field, name in names.items():
        option = options[name]
        assert isinstance(option, TyperOption)
        assert (option.help or "").startswith(docs[field])
        unset = () if field in REPEATABLE else None
        assert (unset if option.default is None else option.default) == getattr(defaults, field)


def test_every_setting_of_auto_fuse_is_an_option_with_its_docs_and_default() -> None:
    options = {option.name: option for option in typer.main.get_command(serve_app).params}
    docs = field_docs(Settings)
    for field in fields(Settings):
        option = options[f"fuse_{field.name}"]
        assert isinstance(option, TyperOption)
        assert (option.help, option.default) == (docs[field.name], getattr(Settings(), field.name))


@given(st.lists(VLLM_WORDS), st.data())
def test_what_is_not_ours_goes_on_unchanged_and_in_order(words: list[str], data: st.DataObject) -> None:
    blocks = [[word] for word in words]
    for ours in OUR_WORDS:
        blocks.insert(data.draw(st.integers(0, len(blocks))), ours)
    left, taken = read([word for block in blocks for word in block])
    assert left == words
    assert (taken["port"], taken["strict"], taken["model"]) == (9001, True, "org/m")


def test_several_keys_come_from_one_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORA_COMPOSE_API_KEY", "one two")
    assert read([])[1]["api_key"] == ["one", "two"]


def test_a_config_that_cannot_work_is_one_line_and_exit_code_2() -> None:
    result = CliRunner().invoke(serve_app, ["--port", "99999"])
    assert result.exit_code == 2
    assert result.output == "error: --port (99999) must be between 1 and 65535\n"


def test_help_names_the_options_of_vllm_that_matter() -> None:
    shown = CliRunner().invoke(serve_app, ["--help"], env={"COLUMNS": "200"}).output
    for option in ("--max-loras", "--max-lora-rank", "--max-cpu-loras", "--served-model-name", "--dtype"):
        assert option in shown
