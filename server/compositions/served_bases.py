"""Which versions this server serves: those of its own base, and of the bases that --accept-base names."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_compose.adapters.admission.fingerprint import older_fingerprint
from lora_compose.adapters.errors import AdapterRejected, Code, Unservable
from lora_compose.adapters.registry.description import Served
from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.registry.store import Base, Version

if TYPE_CHECKING:
    from lora_compose.adapters.admission.admit import AdmissionLimits
    from lora_compose.adapters.admission.base_model import BaseShapes

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedBases(Served):
    """The base of this server, and the bases of --accept-base whose versions it serves too."""

    check_accepted: Callable[[Version], None] = lambda _: None
    """Raises AdapterRejected if a version of an accepted base does not fit this server's base."""

    def require(self, version: Version) -> None:
        """Raises Unservable("wrong_base") if it is of another base, or does not fit."""
        reason = self.why_not(version)
        if reason is not None:
            raise Unservable(Code.WRONG_BASE, reason, "model")
        if not version.is_for({self.base.fingerprint}):
            try:
                self.check_accepted(version)
            except AdapterRejected as error:
                text = f"{version.id} was registered for another base and does not fit: {error.message}"
                raise Unservable(Code.WRONG_BASE, text, "model") from error


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

    return ServedBases(own, frozenset({own.fingerprint}).union(*selected.values()), check)
