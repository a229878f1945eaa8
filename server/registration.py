"""Takes an adapter in: copy, check the copy, register it, and let requests see it.

Everything here runs in a worker thread, since it reads and hashes files. The copy is checked, not the
original: what changes after the check is not what was checked.
"""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.admission import Limits, admit
from adapters.registry import Registry
from adapters.store import Version
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from adapters.base_shapes import BaseShapes
from adapters.errors import AdapterRejected, Conflict, Forbidden, InvalidRequest, NotFound
from adapters.names import check_alias, check_name
from adapters.peft_format import CONFIG_NAME, WEIGHTS_NAME
from server.metrics import Metrics

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Offer:
    """What a client wants registered, apart from the bytes."""

    name: str
    alias: str | None = None
    digest: str | None = None
    """The digest the client computed; another one means the bytes did not arrive whole."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.alias is not None:
            check_alias(self.alias)


@dataclass(frozen=True)
class Registration:
    """The way in. `changed` is called after the registry has changed."""

    registry: Registry
    base: BaseShapes
    limits: Limits
    adapter_roots: tuple[Path, ...]
    allow_hf: bool
    metrics: Metrics
    changed: Callable[[], None]

    def from_path(self, offer: Offer, path: str) -> tuple[Version, bool]:
        """A directory on this machine, inside an --adapter-root. (version, whether it is new)."""
        return self._take(offer, self._allowed(path), "path")

    def from_hub(self, offer: Offer, reference: str) -> tuple[Version, bool]:
        """`org/repo` or `org/repo@revision` on the Hugging Face Hub; only with --allow-hf."""
        if not self.allow_hf:
            raise InvalidRequest(
                "source_not_allowed", "This server takes no adapters from the Hub (--allow-hf).", "hf"
            )
        repo, _, revision = reference.partition("@")
        try:
            directory = snapshot_download(
                repo, revision=revision or None, allow_patterns=[CONFIG_NAME, WEIGHTS_NAME]
            )
        except (HfHubHTTPError, LocalEntryNotFoundError, ValueError) as error:
            raise NotFound("adapter_not_found", f"The Hub has no {reference!r:.200}.", "hf") from error
        return self._take(offer, Path(directory), f"hf:{reference}", follow_links=True)

    def from_staged(self, offer: Offer, staged: Path, source: str) -> tuple[Version, bool]:
        """Files that already lie in the registry's staging area, such as an upload."""
        self._check_name_is_free(offer)
        try:
            version, created = self._admit_and_register(offer, staged, source)
        except AdapterRejected:
            self.metrics.registrations.labels("refused").inc()
            raise
        self.metrics.registrations.labels("created" if created else "unchanged").inc()
        self.changed()
        return version, created

    def _admit_and_register(self, offer: Offer, staged: Path, source: str) -> tuple[Version, bool]:
        admission = admit(staged, self.base, self.limits)
        lineage: dict[str, Any] = {"base_model_name_or_path": admission.base_model_name_or_path}
        version, created = self.registry.register(
            offer.name,
            staged,
            admission,
            source,
            self.base.fingerprint,
            lineage,
            expected_digest=offer.digest,
        )
        if offer.alias is not None:
            self.registry.set_alias(offer.name, offer.alias, str(version.number))
        logger.info("registered %s rank %d from %s (new: %s)", version.id, version.rank, source, created)
        return version, created

    def _check_name_is_free(self, offer: Offer) -> None:
        if offer.name == self.base.name:
            raise Conflict("name_reserved", f"{offer.name!r} is the base model's name.", "name")

    def _take(
        self, offer: Offer, directory: Path, source: str, follow_links: bool = False
    ) -> tuple[Version, bool]:
        self._check_name_is_free(offer)
        where = directory.resolve() if follow_links else directory
        staging: AbstractContextManager[Path] = self.registry.stage(where / CONFIG_NAME, where / WEIGHTS_NAME)
        with staging as staged:
            return self.from_staged(offer, staged, source)

    def _allowed(self, path: str) -> Path:
        """`path` as a directory inside a root, links followed; the same refusal whether or not it exists."""
        if "\0" not in path:
            directory = Path(path).resolve()
            if any(directory.is_relative_to(root.resolve()) for root in self.adapter_roots):
                if not directory.is_dir():
                    raise NotFound("adapter_not_found", "There is no such adapter directory.", "path")
                return directory
        raise Forbidden(
            "path_not_allowed", "The path is not inside an --adapter-root of this server.", "path"
        )
