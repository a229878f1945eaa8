"""A name of a known model stands for its directory wherever a base is named."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lora_compose.adapters.command_line import create_app, default_data_dir
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.adapters.models import cache
from lora_compose.adapters.models.cache import models_dir, name_of, resolve
from lora_compose.adapters.models.get import get
from lora_compose.adapters.models.known import KNOWN, KnownModel
from lora_compose.server.config import ServerConfig, options_of_base
from lora_compose.server.serve import run
from lora_compose.training.recipe import read_recipe

MISSING = "smollm2 is not on this machine. Get it: `lora-compose models get smollm2`"


def test_a_model_that_is_not_here_is_one_line_with_the_command(home: Path) -> None:
    with pytest.raises(LoraComposeError, match=f"--model {MISSING}") as refused:
        resolve("smollm2")
    assert refused.value.code == "no_model"


def test_a_directory_of_that_name_comes_first(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smollm2").mkdir()
    assert resolve("smollm2") == "smollm2"


@pytest.mark.parametrize("model", ["org/smollm2", "./smollm2", "SmolLM2", "", "/nowhere"])
def test_every_other_value_is_left_alone(home: Path, model: str) -> None:
    assert resolve(model) == model


def test_serve_refuses_it_before_it_loads_anything(home: Path) -> None:
    with pytest.raises(LoraComposeError, match=MISSING):
        run(ServerConfig(model="smollm2"), [])


def test_a_recipe_refuses_it_before_it_loads_anything(home: Path) -> None:
    options = ("--model_name_or_path", "smollm2", "--output_dir", "out", "--domain", "rows.jsonl")
    with pytest.raises(LoraComposeError, match=f"model_name_or_path {MISSING}"):
        read_recipe("sft", None, options)


@pytest.mark.parametrize(
    "words",
    [
        ("eval", "--model", "smollm2", "--general", "testbed:general"),
        ("doctor", "--model", "smollm2"),
        ("bench", "serve", "--model", "smollm2", "--quick"),
    ],
)
def test_the_commands_that_take_a_base_refuse_it(home: Path, words: tuple[str, ...]) -> None:
    result = CliRunner().invoke(create_app(), list(words))
    assert isinstance(result.exception, LoraComposeError)
    assert MISSING in result.exception.message


def test_planning_needs_no_download(home: Path) -> None:
    result = CliRunner().invoke(create_app(), ["train", "plan", "--model", "smollm2", "--json"])
    assert '"parameters": 134515008' in result.stdout


def test_requests_use_the_name_of_the_model(
    tiny: KnownModel, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(tiny, wheel, lambda *_: None, lambda _: None)
    directory = resolve("tiny")
    assert name_of(directory) == "tiny"
    config = ServerConfig(model=directory)
    assert options_of_base(config, []) == ["--served-model-name", "tiny"]
    assert options_of_base(config, ["--served-model-name", "mine"]) == []


def test_another_directory_of_that_name_has_no_name(tmp_path: Path, home: Path) -> None:
    (tmp_path / "smollm2").mkdir()
    assert name_of(str(tmp_path / "smollm2")) is None


def test_a_user_without_a_home_has_the_cache_in_the_data_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(cache, "user_cache_path", no_home)
    assert models_dir() == default_data_dir().absolute() / "models"


def test_the_pinned_digests_are_those_of_sha256() -> None:
    for model in KNOWN.values():
        for digest in (model.wheel_sha256, model.gguf_sha256, model.weights_sha256):
            assert len(bytes.fromhex(digest)) == 32
