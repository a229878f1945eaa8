"""--lora-modules: adapters that are registered when the server starts."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lora_compose.adapters.admission.admit import AdmissionLimits
from lora_compose.adapters.admission.base_model import BaseShapes
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.adapters.registry.registry import Registry
from lora_compose.server.metrics import Metrics
from lora_compose.server.options.lora_modules import LoraModule
from lora_compose.server.preloading import register_modules
from lora_compose.server.registration import Offer, Registration
from tests.adapters.written_adapters import SHAPES, write_peft

NAMES = frozenset({"base", "second"})


@pytest.fixture
def registration(tmp_path: Path) -> Iterator[Registration]:
    """It allows clients no path and not the Hub."""
    limits = AdmissionLimits(max_lora_rank=8, dtype=torch.float32)
    with Registry(tmp_path / "data", reserved=["base"]) as registry:
        yield Registration(
            registry, BaseShapes(dict(SHAPES), "f00d", "base"), limits, (), False, Metrics(), lambda: None
        )


def adapter(directory: Path, seed: int) -> str:
    write_peft(directory, seed=seed)
    return str(directory)


def test_they_are_ordinary_versions_and_a_restart_adds_none(
    registration: Registration, tmp_path: Path
) -> None:
    modules = [
        LoraModule("a", adapter(tmp_path / "x", 0)),
        LoraModule("b", adapter(tmp_path / "y", 1), "second"),
    ]
    for _ in range(2):
        register_modules(registration, modules, NAMES)
    assert [version.id for version in registration.registry.newest()] == ["a@1", "b@1"]


def test_links_are_followed_because_the_operator_chose_the_place(
    registration: Registration, tmp_path: Path
) -> None:
    adapter(tmp_path / "real", 0)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    register_modules(registration, [LoraModule("a", str(tmp_path / "link"))], NAMES)
    assert registration.registry.names() == ["a"]


def test_a_newer_version_stays_what_the_name_means_and_the_log_says_so(
    registration: Registration, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    module = LoraModule("a", adapter(tmp_path / "x", 0))
    register_modules(registration, [module], NAMES)
    config = tmp_path / "x" / "adapter_config.json"
    first = config.read_text()
    config.write_text(f"{first} ")
    register_modules(registration, [module], NAMES)
    config.write_text(first)
    with caplog.at_level(logging.WARNING):
        register_modules(registration, [module], NAMES)
    assert "a means a@2, which was registered after a@1" in caplog.text
    assert registration.registry.newest()[0].id == "a@2"


def test_one_that_is_refused_ends_the_start_with_its_name(registration: Registration, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(LoraComposeError, match=r"^--lora-modules a=.*empty: ") as refused:
        register_modules(registration, [LoraModule("a", str(tmp_path / "empty"))], NAMES)
    assert refused.value.code == "missing_config"
    for module in (
        LoraModule("base", adapter(tmp_path / "x", 0)),
        LoraModule("c", str(tmp_path / "x"), "other"),
    ):
        with pytest.raises(LoraComposeError, match=f"^--lora-modules {module.name}"):
            register_modules(registration, [module], NAMES)
    assert registration.registry.count() == 0


def test_clients_may_still_register_no_path(registration: Registration, tmp_path: Path) -> None:
    path = adapter(tmp_path / "x", 0)
    register_modules(registration, [LoraModule("a", path)], NAMES)
    with pytest.raises(LoraComposeError) as refused:
        registration.from_path(Offer("b"), path)
    assert refused.value.code == "path_not_allowed"
