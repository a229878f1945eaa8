"""All operations that change a registry. Each starts from one state that has some of everything."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from lora_compose.adapters.admission.admit import AdmissionLimits
from lora_compose.adapters.admission.base_model import BaseShapes
from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import NotFound
from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.registry.store import Store
from lora_compose.server.metrics import Metrics
from lora_compose.server.registration import Offer, Registration
from tests.adapters.registries import add_merge, register, write_files
from tests.adapters.written_adapters import SHAPES, write_peft
from tests.campaigns.system_calls import Start, Steps

Act = Callable[[Registry], object]


@dataclass(frozen=True)
class Operation:
    """An operation that must happen completely or not at all."""

    name: str
    start: Start
    prepare: Callable[[Path], object] = lambda _: None
    """Changes the data directory before the operation starts."""
    empty: bool = False
    """Whether the operation starts without a data directory."""


def fill(home: Path, adapter: Path) -> None:
    """Make a registry with versions, aliases, a saved composition and a cached merge. Write `adapter`."""
    write_peft(adapter, seed=1)
    with Registry(home) as registry:
        one, _ = register(registry, "sql", "one")
        register(registry, "sql", "two")
        polite, _ = register(registry, "polite", "please")
        registry.set_alias("sql", "prod", "1")
        registry.set_alias("sql", "next", "2")
        registry.save_composition("mine", parse("sql@prod+polite:0.5"))
        add_merge(registry, "key", "merged", [one.digest, polite.digest])


def operations(adapter: Path) -> tuple[Operation, ...]:
    """All operations. One of them registers the PEFT directory `adapter`."""
    return (
        Operation("open a new registry", _open, empty=True),
        Operation("open after a kill", _open, prepare=_leave_files),
        _on("register a first version", lambda r: register(r, "new", "first")),
        _on("register a next version", lambda r: register(r, "sql", "three")),
        _on("register the same bytes", lambda r: register(r, "sql", "two")),
        _on("register with an alias", lambda r: _registration(r, adapter).from_path(_offer(), str(adapter))),
        _on("set an alias", lambda r: r.set_alias("polite", "stable")),
        _on("move an alias", lambda r: r.set_alias("sql", "prod", "2")),
        _on("remove an alias", lambda r: r.remove_alias("sql", "next")),
        _on("save a composition", lambda r: r.save_composition("yours", parse("sql:0.7+polite@1"))),
        _on("delete a composition", lambda r: r.delete_composition("mine")),
        _on("remove a version", lambda r: r.remove("sql", "2")),
        _on("remove an adapter, cascading", lambda r: r.remove("polite", cascade=True)),
        _on("remove an adapter, then sweep", _remove_and_sweep),
        _on("sweep", lambda r: r.sweep(), first=_remove_if_there),
        _on("cache a merge", lambda r: _merge(r, "other", "other merge")),
        _on("cache a merge again", lambda r: _merge(r, "key", "better merge")),
    )


def _on(name: str, act: Act, first: Act = lambda _: None) -> Operation:
    def start(home: Path) -> Steps:
        registry = Registry(home)
        first(registry)
        return lambda: act(registry), registry.close

    return Operation(name, start)


def _open(home: Path) -> Steps:
    opened: list[Registry] = []
    return lambda: opened.append(Registry(home)), lambda: opened[0].close()


def _leave_files(home: Path) -> None:
    """Leave the files of a process that was killed after it installed files and while it copied others."""
    store = Store(home)
    with store.staging() as staged, store.sealed(write_files(staged, "orphan")) as sealed:
        store.install(sealed)
    write_files(home / "tmp" / "half", "half a copy")


def _remove_and_sweep(registry: Registry) -> None:
    registry.remove("polite", cascade=True)
    registry.sweep()


def _remove_if_there(registry: Registry) -> None:
    with suppress(NotFound):
        registry.remove("polite", cascade=True)


def _merge(registry: Registry, key: str, text: str) -> Path:
    return add_merge(registry, key, text, [registry.resolve(name).digest for name in ("sql", "polite")])


def _offer() -> Offer:
    return Offer("tiny", alias="prod")


def _registration(registry: Registry, adapter: Path) -> Registration:
    return Registration(
        registry=registry,
        base=BaseShapes(dict(SHAPES), "f00d", "made-up"),
        limits=AdmissionLimits(max_lora_rank=8, dtype=torch.float32),
        adapter_roots=(adapter.parent,),
        allow_hf=False,
        metrics=Metrics(),
        changed=lambda: None,
    )
