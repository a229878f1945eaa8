"""Which versions this server serves: those of its own base, and of the bases that --accept-base names."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_compose.adapters.admission.fingerprint import older_fingerprint
from lora_compose.adapters.errors import Code, Unservable
from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.registry.store import Base, Version

if TYPE_CHECKING:
    from lora_compose.adapters.admission.admit import AdmissionLimits
    from lora_compose.adapters.admission.base_model import BaseShapes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedBases:
    """The base of this server, and the bases of --accept-base whose versions it serves too."""

    own: Base
    accepted: frozenset[str] = frozenset()
    """Fingerprints."""
    check_accepted: Callable[[Version], None] = lambda _: None
    """Raises AdapterRejected if a version of an accepted base does not fit this server's base."""

    @property
    def fingerprints(self) -> Collection[str]:
        return {self.own.fingerprint, *self.accepted}

    def serves(self, version: Version) -> bool:
        """Whether the version was admitted for one of these bases."""
        return version.is_for(self.fingerprints)

    def require(self, version: Version) -> None:
        """Raises Unservable("wrong_base"), and AdapterRejected if it does not fit."""
        if not self.serves(version):
            raise Unservable(Code.WRONG_BASE, self.refusal(version), "model")
        if not version.is_for({self.own.fingerprint}):
            self.check_accepted(version)

    def refusal(self, version: Version) -> str:
        """Why the version is not served, and what to do."""
        others = " and ".join(map(str, version.bases))
        return (
            f"{version.id} was registered for another base: {others}. This server's base is {self.own}. "
            "Register the files again here, which admits them for this base, or start the server with "
            f"--accept-base {version.bases[0].fingerprint[:12]}."
        )


def served_bases(
    registry: Registry, model_dir: Path, base: "BaseShapes", limits: "AdmissionLimits", accept: Sequence[str]
) -> ServedBases:
    """The bases of a server that starts now. The registry records its base.

    `accept` are the values of --accept-base. One that selects no base of the registry is logged."""
    from lora_compose.adapters.admission.admit import check_shapes

    own = Base(base.fingerprint, base.name)
    registry.bases.serve(own, [older_fingerprint(model_dir)])
    selected = registry.bases.selected(accept)
    for text in (text for text in accept if not selected[text]):
        known = ", ".join(map(str, registry.bases.counts())) or "none"
        logger.warning("--accept-base %s selects no base of the registry's versions: %s", text, known)

    def check(version: Version) -> None:
        check_shapes(version.directory, base, limits)

    return ServedBases(own, frozenset[str]().union(*selected.values()), check)
