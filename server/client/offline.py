"""Lists adapters from a registry on this machine, without a server. It writes nothing.

The registry's base is that of `model`, or else the one that a server of this registry served last.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lora_compose.adapters.composition.grammar import parse_reference
from lora_compose.adapters.errors import CommandCode, LoraComposeError

if TYPE_CHECKING:
    from lora_compose.adapters.registry.description import Served
    from lora_compose.adapters.registry.registry import Registry


def catalogue(data_dir: Path, model: Path | None) -> list[dict[str, Any]]:
    """All versions in the form of `GET /v1/adapters`. Without a known base, `served` is null."""
    from lora_compose.adapters.registry.description import describe

    with _opened(data_dir, model) as (registry, served):
        return [describe(version, aliases, served) for version, aliases in registry.catalogue()]


def adapter(data_dir: Path, model: Path | None, reference: str) -> dict[str, Any]:
    """One version. A name alone is the version that a request would get."""
    from lora_compose.adapters.registry.description import describe

    name, ref = parse_reference(reference, "name")
    with _opened(data_dir, model) as (registry, served):
        version = registry.resolve(name, ref, None if served is None else served.fingerprints)
        aliases = [alias for alias, number in registry.aliases(name).items() if number == version.number]
        return describe(version, aliases, served)


@contextmanager
def _opened(data_dir: Path, model: Path | None) -> Iterator[tuple["Registry", "Served | None"]]:
    from lora_compose.adapters.registry.description import Served
    from lora_compose.adapters.registry.registry import Registry
    from lora_compose.adapters.registry.store import Base

    with Registry.open_readonly(data_dir) as registry:
        base = registry.bases.served() if model is None else Base(_fingerprint(model), model.name)
        yield registry, None if base is None else Served(base, {base.fingerprint})


def _fingerprint(model: Path) -> str:
    from lora_compose.adapters.admission.fingerprint import fingerprint

    try:
        return fingerprint(model)
    except (OSError, ValueError) as error:
        raise LoraComposeError(
            CommandCode.NO_MODEL, f"--model {model} is not the directory of a model: {error}"
        ) from error
