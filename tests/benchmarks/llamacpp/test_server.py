from itertools import pairwise
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.benchmarks.llamacpp.server import Capacity, find_server, request_body, server_command
from lora_compose.benchmarks.llamacpp.vocabulary import token_ids, token_text
from lora_compose.benchmarks.serving.cli import app
from lora_compose.benchmarks.serving.load import body


def program(path: Path) -> Path:
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_program_on_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    right = program(tmp_path / "llama-server")
    assert find_server(None) == right.resolve()


def test_a_missing_program_is_one_line_that_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for given in (None, tmp_path / "nothing", tmp_path):
        with pytest.raises(LoraComposeError) as refused:
            find_server(given)
        assert "--llama-server PATH" in refused.value.message
        assert "\n" not in refused.value.message


def test_no_server_is_started_without_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = CliRunner().invoke(app, ["serve", "--arms", "single,llamacpp", "--adapters", "roll"])
    assert isinstance(done.exception, LoraComposeError)
    assert done.exception.code == "llamacpp_unavailable"


def test_the_command_has_room_for_every_sequence_and_no_adapter_is_on_at_the_start() -> None:
    files = [Path("a.gguf"), Path("b.gguf")]
    command = server_command(Path("llama-server"), 8500, Path("base.gguf"), files, Capacity(2, 8, 257))
    given = dict(pairwise(command))
    assert (given["-t"], given["--parallel"], given["-c"]) == ("2", "8", str(8 * 512))
    assert given["--lora-scaled"] == "a.gguf:0,b.gguf:0"
    assert "--lora-scaled" not in server_command(
        Path("llama-server"), 8500, Path("base.gguf"), [], Capacity(2, 8, 64)
    )


def test_a_composition_becomes_a_scale_for_each_adapter_and_the_base_none() -> None:
    names = ["sql", "polite", "terse"]
    stack = request_body(body("terse@2:0.25+sql", [1, 2], 4, "salt"), names)
    assert stack["lora"] == [{"id": 0, "scale": 1.0}, {"id": 1, "scale": 0.0}, {"id": 2, "scale": 0.25}]
    assert (stack["prompt"], stack["max_tokens"], stack["cache_prompt"]) == ([1, 2], 4, False)
    assert request_body(body("", [1, 2], 4, "salt"), names)["lora"] == []


def test_the_ids_of_an_answer_are_read_from_its_text() -> None:
    assert token_ids("".join(map(token_text, [7, 49151, 0]))) == [7, 49151, 0]
    assert token_ids("") == []
