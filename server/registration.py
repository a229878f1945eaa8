"""Registers and removes adapters.

`Registration` copies the files, checks the copy, registers it and makes it visible to requests. It runs in a
worker thread, because it reads and hashes files. It checks the copy and not the original, because the
original could change after the check. `Removal` removes the name at once; the files and the builds in the
engine are removed when no request uses them any more.
"""

import errno
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from starlette.concurrency import run_in_threadpool

from lora_compose.adapters.admission.admit import AdmissionLimits, admit, refuse_pickle
from lora_compose.adapters.admission.base_model import BaseShapes
from lora_compose.adapters.admission.tensors import check_header
from lora_compose.adapters.errors import (
    AdapterRejected,
    Code,
    Forbidden,
    InvalidRequest,
    NotFound,
    StorageUnavailable,
)
from lora_compose.adapters.names import check_alias, check_name
from lora_compose.adapters.peft.files import FILES, MISSING
from lora_compose.adapters.registry.database import storage_faults
from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.registry.store import Base, Version, content_of
from lora_compose.adapters.registry.versions import Terms
from lora_compose.adapters.safe_files import confined_directory, open_regular
from lora_compose.server.compositions.resolver import Resolver
from lora_compose.server.metrics import Metrics
from lora_compose.server.residency.scheduler import ResidencyScheduler
from lora_compose.server.tenants.caller import Caller

SWAPPED = frozenset({errno.ELOOP, errno.ENOTDIR})
"""The errors of opening a directory that was replaced by a link or a file."""


@dataclass(frozen=True)
class Offer:
    """The registration that a client requests, without the files."""

    name: str
    alias: str | None = None
    digest: str | None = None
    """The digest that the client computed. Files with another digest were damaged on the way."""
    training: Mapping[str, Any] | None = None
    """The client's description of how it was made; see `lora_compose.adapters.registry.lineage`."""
    ttl_seconds: int | None = None
    """The version expires after this many seconds. None: never."""
    caller: Caller | None = None
    """The caller whose quotas apply; None: no quotas."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.alias is not None:
            check_alias(self.alias)


@dataclass(frozen=True)
class Registration:
    """Registers adapters from a path, the Hub or an upload, and calls `changed` after each."""

    registry: Registry
    base: BaseShapes
    limits: AdmissionLimits
    adapter_roots: tuple[Path, ...]
    allow_hf: bool
    metrics: Metrics
    changed: Callable[[], None]
    _quota_lock: threading.Lock = field(default_factory=threading.Lock)

    def from_path(self, offer: Offer, path: str) -> tuple[Version, bool]:
        """Register a directory inside an --adapter-root. Returns the version and whether it is new."""
        root, directory = self._allowed(path)
        with self._counted(), _inside(root, directory) as descriptor:
            return self._from_directory(offer, descriptor)

    def from_hub(self, offer: Offer, reference: str) -> tuple[Version, bool]:
        """Register `org/repo` or `org/repo@revision` of the Hugging Face Hub. Needs --allow-hf."""
        if not self.allow_hf:
            raise InvalidRequest(
                Code.SOURCE_NOT_ALLOWED,
                "This server does not accept adapters from the Hub (--allow-hf is off).",
                "hf",
            )
        repo, _, revision = reference.partition("@")
        try:
            directory = snapshot_download(repo, revision=revision or None, allow_patterns=list(FILES))
        except (HfHubHTTPError, LocalEntryNotFoundError, ValueError) as error:
            raise NotFound(
                Code.ADAPTER_NOT_FOUND, f"{reference!r:.200} was not found on the Hub.", "hf"
            ) from error
        with self._counted():
            refuse_pickle(Path(directory))
            # The files in the Hub's cache are symbolic links.
            files = [(Path(directory) / name).resolve() for name in FILES]
            with self.registry.stage(files[0], files[1], self.limits.max_bytes) as staged:
                return self._from_staged(offer, staged, f"hf:{reference}")

    def from_files(self, offer: Offer, config: BinaryIO, weights: BinaryIO) -> tuple[Version, bool]:
        """Register two open files, for example those of an upload."""
        with self._counted(), self._stage(config, weights) as staged:
            return self._from_staged(offer, staged, "upload")

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Time a registration, and count it as refused if any check of the adapter's files fails."""
        try:
            with self.metrics.registration_seconds.time():
                yield
        except AdapterRejected:
            self.metrics.registrations.labels("refused").inc()
            raise

    def _from_directory(self, offer: Offer, directory: int) -> tuple[Version, bool]:
        refuse_pickle(directory)
        with ExitStack() as end:
            with storage_faults():
                config, weights = (
                    end.enter_context(open_regular(Path(name), missing, directory))
                    for name, missing in MISSING.items()
                )
            staged = end.enter_context(self._stage(config, weights))
            return self._from_staged(offer, staged, "path")

    def _stage(self, config: BinaryIO, weights: BinaryIO) -> AbstractContextManager[Path]:
        """Copy the files. The header is checked first, so that a damaged file is not copied."""
        with storage_faults():
            check_header(weights, self.limits.max_bytes, self.registry.staging_dir)
        return self.registry.stage(config, weights, self.limits.max_bytes)

    def _from_staged(self, offer: Offer, staged: Path, source: str) -> tuple[Version, bool]:
        if offer.digest is not None and content_of(staged).digest != offer.digest:
            raise InvalidRequest(
                Code.DIGEST_MISMATCH, "The digest of the files is not the digest in the request.", "digest"
            )
        if offer.caller is None or not offer.caller.has_storage_quota:
            version, created = self._admit_and_register(offer, staged, source)
        else:
            with self._quota_lock:  # two registrations must not both use the rest of the quota
                offer.caller.require_storage(self.registry, staged)
                version, created = self._admit_and_register(offer, staged, source)
        self.metrics.registrations.labels("created" if created else "unchanged").inc()
        self.changed()
        return version, created

    def _admit_and_register(self, offer: Offer, staged: Path, source: str) -> tuple[Version, bool]:
        trained_on = (offer.training or {}).get("base_fingerprint")
        trained_on = trained_on if isinstance(trained_on, str) else None
        admission = admit(staged, self.base, self.limits, trained_on)
        lineage: dict[str, Any] = {"base_model_name_or_path": admission.base_model_name_or_path}
        if offer.training is not None:
            lineage |= {"training": dict(offer.training)}
        base = Base(self.base.fingerprint, self.base.name)
        terms = Terms(offer.alias, base, offer.ttl_seconds)
        return self.registry.register(offer.name, staged, admission, source, lineage, terms)

    def _allowed(self, path: str) -> tuple[Path, Path]:
        """The root and the resolved directory of `path`. A path that does not exist has the same refusal."""
        with suppress(
            OSError, RuntimeError, ValueError
        ):  # a loop of links, a link that is removed, a NUL character
            directory = Path(path).resolve()
            for root in map(Path.resolve, self.adapter_roots):
                if directory.is_relative_to(root):
                    return root, directory
        raise _not_allowed()


@contextmanager
def _inside(root: Path, directory: Path) -> Iterator[int]:
    """Open the directory. Raises NotFound("adapter_not_found"), or Forbidden if it was replaced by a link."""
    with ExitStack() as end:
        try:
            descriptor = end.enter_context(confined_directory(root, directory))
        except FileNotFoundError as error:
            raise NotFound(Code.ADAPTER_NOT_FOUND, "The adapter directory does not exist.", "path") from error
        except OSError as error:
            if error.errno in SWAPPED:
                raise _not_allowed() from error
            raise StorageUnavailable(
                Code.STORAGE_UNAVAILABLE, "The adapter directory cannot be read at the moment."
            ) from error
        yield descriptor


def _not_allowed() -> Forbidden:
    return Forbidden(
        Code.PATH_NOT_ALLOWED, "The path is not inside an --adapter-root directory of this server.", "path"
    )


@dataclass(frozen=True)
class Removal:
    """Removes adapters from the registry, the engine and the metrics."""

    registry: Registry
    resolver: Resolver
    residency: ResidencyScheduler
    metrics: Metrics

    async def remove(self, name: str, ref: str | None, *, cascade: bool) -> None:
        """Raises NotFound, or Conflict("in_use") if a saved composition needs it and `cascade` is false."""
        await self.finish(await run_in_threadpool(self.registry.remove, name, ref, cascade=cascade))

    async def finish(self, versions: Collection[Version]) -> None:
        """These versions were removed from the registry. Remove them from the engine and delete their files.

        Requests in flight finish first."""
        self.resolver.registry_changed()
        remaining = set(self.registry.names())
        self.metrics.registered.set(len(remaining))
        for removed in {version.name for version in versions} - remaining:
            self.metrics.adapter_requests.remove(removed)
        await self.residency.remove(
            frozenset(version.id for version in versions), frozenset(version.digest for version in versions)
        )
