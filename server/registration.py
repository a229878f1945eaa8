"""Registers and removes adapters.

`Registration` copies the files, checks the copy, registers it and makes it visible to requests. It runs in a
worker thread, because it reads and hashes files. It checks the copy and not the original, because the
original could change after the check. `Removal` removes the name at once; the files and the builds in the
engine are removed when no request uses them any more.
"""

import errno
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from starlette.concurrency import run_in_threadpool

from lora_compose.adapters.admission.admit import AdmissionLimits, admit
from lora_compose.adapters.admission.base_model import BaseShapes
from lora_compose.adapters.admission.recognition import check_directory, refuse_other_formats, what_name_is
from lora_compose.adapters.admission.tensors import check_header
from lora_compose.adapters.errors import (
    AdapterRejected,
    Code,
    Forbidden,
    InvalidRequest,
    LoraComposeError,
    NotFound,
    StorageUnavailable,
)
from lora_compose.adapters.names import check_alias, check_name
from lora_compose.adapters.peft.files import CONFIG_FILE, FILES, MISSING
from lora_compose.adapters.registry.database import storage_faults
from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.registry.store import Base, Version, content_of
from lora_compose.adapters.registry.versions import Terms
from lora_compose.adapters.safe_files import ConfinedDirectory, OutsideRoots, confined_directory
from lora_compose.server.compositions.resolver import Resolver
from lora_compose.server.metrics import Metrics
from lora_compose.server.residency.scheduler import ResidencyScheduler
from lora_compose.server.tenants.caller import Caller

_HUB_REFERENCE = re.compile(
    r"(?P<repo>\w[\w.-]*(/\w[\w.-]*)?)(@(?P<revision>\w[\w./-]*))?(:(?P<directory>\w[\w.-]*(/\w[\w.-]*)*))?",
    re.ASCII,
)
LINK_LEAVES = (
    "A file of the adapter is a link that leads out of every --adapter-root directory of this server. Copy "
    "the file itself into the directory, or start the server with one more --adapter-root, for the directory "
    "that the link leads to."
)


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
        with self._counted(), _inside(self.adapter_roots, path) as directory:
            return self._from_directory(offer, directory)

    def from_hub(self, offer: Offer, reference: str) -> tuple[Version, bool]:
        """Register an adapter of the Hugging Face Hub; see `hub_reference`. Needs --allow-hf."""
        if not self.allow_hf:
            raise InvalidRequest(
                Code.SOURCE_NOT_ALLOWED,
                "This server does not accept adapters from the Hub (--allow-hf is off).",
                "hf",
            )
        directory = _downloaded(hub_reference(reference), reference)
        with self._counted():
            check_directory(directory)
            # The files in the Hub's cache are symbolic links.
            files = [(directory / name).resolve() for name in FILES]
            with self.registry.stage(files[0], files[1], self.limits.max_bytes) as staged:
                return self._from_staged(offer, staged, f"hf:{reference}")

    def is_on_hub(self, path: str) -> bool:
        """Whether a path from a client for vLLM names a repository of the Hub, and those are allowed."""
        is_repository = "/" in path and _HUB_REFERENCE.fullmatch(path) is not None
        return self.allow_hf and is_repository and not Path(path).exists()

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

    def _from_directory(self, offer: Offer, directory: ConfinedDirectory) -> tuple[Version, bool]:
        with _readable():
            refuse_other_formats(directory)
        with ExitStack() as end:
            with _readable():
                config, weights = end.enter_context(directory.opened_together(MISSING))
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


@contextmanager
def _inside(roots: Sequence[Path], path: str) -> Iterator[ConfinedDirectory]:
    """Open the directory `path`, which must be below one of `roots`.

    Raises Forbidden("path_not_allowed") for it and for a link of its files that leaves the roots. A path
    outside that does not exist has the same refusal. Raises NotFound("adapter_not_found")."""
    with ExitStack() as end:
        try:
            directory = end.enter_context(confined_directory(roots, path))
        except OutsideRoots as error:
            raise _not_allowed() from error
        except NotADirectoryError as error:
            raise InvalidRequest(Code.INVALID_SOURCE, _file_instead(path), "path") from error
        except OSError as error:
            raise _unreadable(error) from error
        try:
            yield directory
        except OutsideRoots as error:
            raise Forbidden(Code.PATH_NOT_ALLOWED, LINK_LEAVES, "path") from error


def _file_instead(path: str) -> str:
    name = PurePosixPath(path).name
    if name in FILES or (found := what_name_is(name)) is None:
        return "The path is a file. Give the directory of the adapter's two files."
    return f"The path is a file, not the directory of the adapter's two files. {name:.80} {found}."


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unreadable(error) from error


def _unreadable(error: OSError) -> LoraComposeError:
    """The refusal for a directory or file inside a root that cannot be opened."""
    if error.errno in {errno.ENOENT, errno.ENAMETOOLONG}:
        return NotFound(Code.ADAPTER_NOT_FOUND, "The adapter directory does not exist.", "path")
    if error.errno == errno.ELOOP:
        return AdapterRejected(Code.NOT_A_REGULAR_FILE, "The path contains a loop of links.", "path")
    reason = "The adapter directory cannot be read at the moment."
    if error.errno == errno.EAGAIN:
        reason = "The files of the adapter are being replaced. Register it again later."
    if error.errno == errno.EACCES:
        reason = "The server may not read the adapter's files. Give its user permission to read them."
    return StorageUnavailable(Code.STORAGE_UNAVAILABLE, reason)


class HubReference(NamedTuple):
    """An adapter on the Hub: its repository, and the revision and the directory if they are given."""

    repo: str
    revision: str | None
    directory: str | None

    @property
    def files(self) -> list[str]:
        """What is read. Configs in directories below show which adapters a repository has."""
        below = [f"*/{CONFIG_FILE}"]
        return [f"{self.directory}/{name}" for name in FILES] + below if self.directory else [*FILES, *below]


def hub_reference(reference: str) -> HubReference:
    """Reads `org/repo`, `org/repo@revision`, `org/repo:directory` or `org/repo@revision:directory`.

    Raises InvalidRequest."""
    found = _HUB_REFERENCE.fullmatch(reference)
    if ".." in reference or found is None:
        raise InvalidRequest(
            Code.INVALID_SOURCE,
            f"{reference!a:.200} is not a repository of the Hub. Write org/repo or org/repo@revision, where "
            "the revision is a branch, a tag or a commit. For an adapter in a directory of the repository, "
            "write org/repo:directory.",
            "hf",
        )
    return HubReference(found["repo"], found["revision"], found["directory"])


def _downloaded(place: HubReference, reference: str) -> Path:
    """The directory of the adapter in the Hub's cache. Raises NotFound("adapter_not_found")."""
    try:
        root = Path(snapshot_download(place.repo, revision=place.revision, allow_patterns=place.files))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError) as error:
        text = f"{reference!r:.200} was not found on the Hub."
        raise NotFound(Code.ADAPTER_NOT_FOUND, text, "hf") from error
    directory = root / (place.directory or "")
    if not directory.is_dir():
        found = sorted(path.parent.relative_to(root).as_posix() for path in root.rglob(CONFIG_FILE))
        has = f"It has adapters in: {', '.join(found):.300}." if found else "It has no adapter."
        text = f"{place.repo} has no directory {place.directory!r:.200} on the Hub. {has}"
        raise NotFound(Code.ADAPTER_NOT_FOUND, text, "hf")
    return directory


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
