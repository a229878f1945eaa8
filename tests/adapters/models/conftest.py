"""A cache of its own for each test, with one known model that is small."""

from pathlib import Path

import pytest

from lora_compose.adapters.models import cache
from lora_compose.adapters.models import get as getting
from lora_compose.adapters.models.known import KNOWN, KnownModel
from tests.adapters.models import tiny_package


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the models. It does not exist yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lora-compose" / "models"


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    return tiny_package.write_wheel(tmp_path)


@pytest.fixture
def tiny(home: Path, wheel: Path, monkeypatch: pytest.MonkeyPatch) -> KnownModel:
    """The small model, which has the name `tiny` here."""
    model = tiny_package.known_model(wheel)
    monkeypatch.setattr(cache, "KNOWN", {**KNOWN, model.name: model})
    monkeypatch.setattr(getting, "convert_gguf", tiny_package.convert)
    return model
