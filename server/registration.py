"""Takes an adapter in: copy, check the copy, register it, and let requests see it.

Everything here runs in a worker thread, since it reads and hashes files. The copy is checked, not the
original: what changes after the check is not what was checked.

Takes adapters out: unnamed at once, gone from the engine and the disk when nobody uses them any more.
"""

import errno
import threading
from collections.abc import Callable, Iterator, Mapping
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
from lora_compose.adapters.registry.store import Version, content_of
from lora_compose.adapters.safe_files import confined_directory, open_regular
from lora_compose.server.compositions.resolver import Resolver
from lora_compose.server.metrics import Metrics
from lora_compose.server.residency.scheduler import ResidencyScheduler
from lora_compose.server.tenants.caller import Caller

SWAPPED = frozenset({errno.ELOOP, errno.ENOTDIR})
"""What opening a directory says of one that has become a link, or a file."""


@dataclass(frozen=True)
class Offer:
    """What a client wants registered, apart from the bytes."""

    name: str
    alias: str | None = None
    digest: str | None = None
    """The digest the client computed; another one means the bytes did not arrive whole."""
    training: Mapping[str, Any] | None = None
    """How it came about, as the client tells it; see `lora_compose.adapters.registry.lineage`."""

    caller: Caller | None = None
    """Whose quotas it comes under."""

    def __post_init__(self) -> None:
        check_name(self.name)
        if self.alias is not None:
            check_alias(self.alias)


@dataclass(frozen=True)
class Registration:
    """The way in. `changed` is called after the registry has changed."""

    registry: Registry
    base: BaseShapes
    limits: AdmissionLimits
    adapter_roots: tuple[Path, ...]
    allow_hf: bool
    metrics: Metrics
    changed: Callable[[], None]
    _one_by_one: threading.Lock = field(default_factory=threading.Lock)

    def from_path(self, offer: Offer, path: str) -> tuple[Version, bool]:
        """A directory on this machine, inside an --adapter-root. (version, whether it is new)."""
        root, directory = self._allowed(path)
        with self._counted(), _inside(root, directory) as descriptor:
            return self._take(offer, descriptor)

    def from_hub(self, offer: Offer, reference: str) -> tuple[Version, bool]:
        """`org/repo` or `org/repo@revision` on the Hugging Face Hub; only with --allow-hf."""
        if not self.allow_hf:
            raise InvalidRequest(
                Code.SOURCE_NOT_ALLOWED, "This server takes no adapters from the Hub (--allow-hf).", "hf"
            )
        repo, _, revision = reference.partition("@")
        try:
            directory = snapshot_download(repo, revision=revision or None, allow_patterns=list(FILES))
        except (HfHubHTTPError, LocalEntryNotFoundError, ValueError) as error:
            raise NotFound(Code.ADAPTER_NOT_FOUND, f"The Hub has no {reference!r:.200}.", "hf") from error
        with self._counted():
            refuse_pickle(Path(directory))
            # The Hub's cache is made of links.
            files = [(Path(directory) / name).resolve() for name in FILES]
            with self.registry.stage(files[0], files[1], self.limits.max_bytes) as staged:
                return self._from_staged(offer, staged, f"hf:{reference}")

    def from_files(self, offer: Offer, config: BinaryIO, weights: BinaryIO) -> tuple[Version, bool]:
        """Two open files, such as an upload's."""
        with self._counted(), self._stage(config, weights) as staged:
            return self._from_staged(offer, staged, "upload")

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Whatever is wrong with an adapter's files counts as a refusal, wherever it is found."""
        try:
            with self.metrics.registration_seconds.time():
                yield
        except AdapterRejected:
            self.metrics.registrations.labels("refused").inc()
            raise

    def _take(self, offer: Offer, directory: int) -> tuple[Version, bool]:
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
        """Copies. A header that is damaged is refused before gigabytes are copied for nothing."""
        with storage_faults():
            check_header(weights, self.limits.max_bytes, self.registry.staging_dir)
        return self.registry.stage(config, weights, self.limits.max_bytes)

    def _from_staged(self, offer: Offer, staged: Path, source: str) -> tuple[Version, bool]:
        if offer.digest is not None and content_of(staged).digest != offer.digest:
            raise InvalidRequest(
                Code.DIGEST_MISMATCH, "The files have another digest than was given.", "digest"
            )
        if offer.caller is None or not offer.caller.is_short_of_room:
            version, created = self._admit_and_register(offer, staged, source)
        else:
            with self._one_by_one:  # two at once must not both find the last room
                offer.caller.require_room(self.registry, staged)
                version, created = self._admit_and_register(offer, staged, source)
        self.metrics.registrations.labels("created" if created else "unchanged").inc()
        self.changed()
        return version, created

    def _admit_and_register(self, offer: Offer, staged: Path, source: str) -> tuple[Version, bool]:
        admission = admit(staged, self.base, self.limits)
        lineage: dict[str, Any] = {
            "base_model_name_or_path": admission.base_model_name_or_path,
            "base_fingerprint": self.base.fingerprint,
        }
        if offer.training is not None:
            lineage |= {"training": dict(offer.training)}
        return self.registry.register(offer.name, staged, admission, source, lineage, offer.alias)

    def _allowed(self, path: str) -> tuple[Path, Path]:
        """A root and the directory `path` in it, links followed; the same refusal if it does not exist."""
        with suppress(OSError, RuntimeError, ValueError):  # a loop of links, a link that goes, a NUL
            directory = Path(path).resolve()
            for root in map(Path.resolve, self.adapter_roots):
                if directory.is_relative_to(root):
                    return root, directory
        raise _not_allowed()


@contextmanager
def _inside(root: Path, directory: Path) -> Iterator[int]:
    """Its descriptor. Raises NotFound("adapter_not_found"), Forbidden where it is a link by now."""
    with ExitStack() as end:
        try:
            descriptor = end.enter_context(confined_directory(root, directory))
        except FileNotFoundError as error:
            raise NotFound(Code.ADAPTER_NOT_FOUND, "There is no such adapter directory.", "path") from error
        except OSError as error:
            if error.errno in SWAPPED:
                raise _not_allowed() from error
            raise StorageUnavailable(Code.STORAGE_UNAVAILABLE, "The directory cannot be read now.") from error
        yield descriptor


def _not_allowed() -> Forbidden:
    return Forbidden(
        Code.PATH_NOT_ALLOWED, "The path is not inside an --adapter-root of this server.", "path"
    )


@dataclass(frozen=True)
class Removal:
    """The way out."""

    registry: Registry
    resolver: Resolver
    residency: ResidencyScheduler
    metrics: Metrics

    async def remove(self, name: str, ref: str | None, *, cascade: bool) -> None:
        """Raises NotFound, or Conflict("in_use") while a saved composition needs it and `cascade` is off."""
        gone = await run_in_threadpool(self.registry.remove, name, ref, cascade=cascade)
        self.resolver.registry_changed()
        left = set(self.registry.names())
        self.metrics.registered.set(len(left))
        for removed in {version.name for version in gone} - left:
            self.metrics.adapter_requests.forget(removed)
        await self.residency.remove(frozenset(version.id for version in gone))
