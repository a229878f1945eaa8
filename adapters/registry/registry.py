"""The registry: which adapters, aliases, saved compositions and merges there are, on one data directory.

Rows say what exists and the store holds the bytes. A row is committed after its files are in place, and files
that no row names are swept, so a process killed anywhere leaves nothing by halves. One process owns a data
directory; in it any thread may call any method. Adapters are not judged here: admission did.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self

from lora_compose.adapters.composition.composition import METHOD_NAMES, SPELLINGS, Composition
from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import Code, CommandCode, Conflict, NotFound
from lora_compose.adapters.names import check_name
from lora_compose.adapters.peft.files import MAX_WEIGHTS_BYTES
from lora_compose.adapters.registry import saved_compositions
from lora_compose.adapters.registry import versions as version_rows
from lora_compose.adapters.registry.data_dir import lock_of, pair, take
from lora_compose.adapters.registry.database import Database, DerivedRow, sqlite_url, storage_faults
from lora_compose.adapters.registry.integrity import check_rows
from lora_compose.adapters.registry.merge_cache import forget_without_members, insert_derived, named_digests
from lora_compose.adapters.registry.store import Store, Version, copy_adapter
from lora_compose.adapters.registry.versions import (
    Admitted,
    aliases_by_version,
    aliases_of,
    as_version,
    damaged,
    drop_alias,
    find,
    live,
    point_alias,
)

logger = logging.getLogger(__name__)


class Registry:
    """Owns `data_dir` until `close`, or the end of the `with` it is used in."""

    def __init__(
        self,
        data_dir: Path,
        database_url: str | None = None,
        *,
        reserved: Collection[str] = (),
        readonly: bool = False,
    ) -> None:
        """`reserved` names, such as the base's, are refused beside the methods' own. Raises Conflict
        data_dir_in_use, wrong_database, schema_too_new, schema_too_old; StorageUnavailable; NotFound."""
        self._reserved = {*reserved, *METHOD_NAMES, *SPELLINGS}
        self._store = Store(data_dir)
        self._lock = lock_of(data_dir)
        if readonly and database_url is None and not Path(str(sqlite_url(data_dir).database)).is_file():
            raise NotFound(CommandCode.NO_REGISTRY, "There is no registry in this data directory.")
        self._database = Database(database_url or sqlite_url(data_dir), readonly)
        with ExitStack() as undo:
            undo.callback(self.close)
            if readonly:
                self._database.require_schema()
            else:
                self._own(data_dir)
            undo.pop_all()

    @classmethod
    def open_readonly(cls, data_dir: Path, database_url: str | None = None) -> "Registry":
        """For tools that only look, also while a server owns the directory: no lock, no sweep."""
        return cls(data_dir, database_url, readonly=True)

    def _own(self, data_dir: Path) -> None:
        with storage_faults():
            data_dir.mkdir(parents=True, exist_ok=True)
            take(self._lock)
            self._store.create()
        self._database.migrate()
        with self._database.writing() as session:
            pair(session, data_dir, empty=not self._store.digests())
        self.sweep()

    def close(self) -> None:
        self._database.close()
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def staging_dir(self) -> Path:
        """A folder on the store's disk for files on their way in; emptied at the next start."""
        return self._store.staging_dir

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty folder in which to write the two files oneself; gone at the end."""
        with ExitStack() as end:
            with storage_faults():
                staged = end.enter_context(self._store.staging())
            yield staged

    @contextmanager
    def stage(
        self, config: Path | BinaryIO, weights: Path | BinaryIO, max_bytes: int = MAX_WEIGHTS_BYTES
    ) -> Iterator[Path]:
        """A folder holding copies of two regular files, or of two open ones; gone at the end.

        Raises AdapterRejected not_a_regular_file, missing_*, bad_adapter_config or weights_too_large."""
        with self.staging() as staged:
            with storage_faults():
                copy_adapter(config, weights, staged, max_bytes)
            yield staged

    def register(
        self,
        name: str,
        staged: Path,
        facts: Admitted,
        source: str,
        lineage: Mapping[str, Any],
        alias: str | None = None,
    ) -> tuple[Version, bool]:
        """Take the two files out of `staged` and make them a version of `name`: (it, whether it is new).
        Bytes that are a live version already stay that version: facts are renewed, damaged files repaired.
        `lineage` is JSON-able; its "base_fingerprint" says for which base. From the same moment on `alias`
        points at it. Raises InvalidRequest("invalid_name"), Conflict("name_reserved")."""
        self._check_free(name)
        with ExitStack() as end:
            with storage_faults():
                sealed = end.enter_context(self._store.sealed(staged))
            with self._database.writing() as session:
                saved_compositions.refuse_use_of_name(session, name)
                row = version_rows.find_content(session, name, sealed.content.digest)
                created = row is None
                row = row or version_rows.insert_version(session, name, sealed.content)
                version_rows.describe(row, facts, source, lineage)
                if alias is not None:
                    point_alias(session, name, alias, str(row.number))
                self._store.install(sealed)
                version = as_version(row, self._store)
        logger.info("registered %s, rank %d, %d bytes", version.id, version.rank, version.bytes)
        return version, created

    def resolve(self, name: str, ref: str | None = None) -> Version:
        """The version that a number, an alias, or None (the newest) names.

        Raises NotFound("model_not_found"), StorageUnavailable("adapter_files_missing")."""
        version = self._look_up(name, ref)
        with storage_faults():
            while not self._store.holds(version.content):
                # Swept since we looked, perhaps: then the rows have changed as well.
                before, version = version, self._look_up(name, ref)
                if version == before:
                    raise damaged(version)
        return version

    def require_files(self, version: Version) -> None:
        """Raises StorageUnavailable("adapter_files_missing") if a file is gone or cut. It reads no bytes."""
        with storage_faults():
            if not self._store.holds(version.content):
                raise damaged(version)

    def verify(self, version: Version) -> None:
        """As `require_files`, but reads the files and compares the digest."""
        with storage_faults():
            if not self._store.is_intact(version.content):
                raise damaged(version)

    def names(self) -> list[str]:
        """The adapters that have a version, sorted."""
        with self._database.reading() as session:
            return version_rows.names(session)

    def versions(self, name: str) -> list[Version]:
        """Oldest first, also those whose files are missing; NotFound("model_not_found")."""
        with self._database.reading() as session:
            return [as_version(row, self._store) for row in live(session, name)]

    def newest(self) -> list[Version]:
        """The newest version of each adapter, by name, also where its files are missing."""
        with self._database.reading() as session:
            return [as_version(row, self._store) for row in version_rows.newest(session)]

    def catalogue(self) -> list[tuple[Version, list[str]]]:
        """Every version with its aliases, by name and the newest of a name first; in one look at the rows."""
        with self._database.reading() as session:
            aliases = aliases_by_version(session)
            rows = version_rows.every(session)
            return [(as_version(row, self._store), aliases[row.name, row.number]) for row in rows]

    def count(self) -> int:
        """How many adapters have a version."""
        with self._database.reading() as session:
            return version_rows.count_names(session)

    def remove(self, name: str, ref: str | None = None, cascade: bool = False) -> list[Version]:
        """Forget one version, or with ref None the whole adapter, and the aliases of what goes; what went.

        The files stay until `sweep`. Raises NotFound("model_not_found"), and Conflict("in_use") where a saved
        composition would not resolve any more, unless `cascade` deletes those too."""
        with self._database.writing() as session:
            doomed = live(session, name) if ref is None else [find(session, name, ref)]
            needing = saved_compositions.depending_on_versions(session, doomed)
            if not cascade:
                saved_compositions.refuse_if_needed(
                    needing, f"the adapter {name if ref is None else f'{name}@{ref}'!r}"
                )
            for saved in needing:
                session.delete(saved_compositions.get(session, saved))
            removed = [as_version(row, self._store) for row in doomed]
            for row in doomed:
                session.delete(row)
        logger.info("removed %s", ", ".join(version.id for version in removed))
        return removed

    def aliases(self, name: str) -> dict[str, int]:
        """Alias to version number; NotFound("model_not_found")."""
        with self._database.reading() as session:
            return aliases_of(session, name)

    def set_alias(self, name: str, alias: str, ref: str | None = None) -> Version:
        """Point `name@alias` at what `ref` names now; NotFound("model_not_found")."""
        with self._database.writing() as session:
            return as_version(point_alias(session, name, alias, ref), self._store)

    def remove_alias(self, name: str, alias: str) -> None:
        """Raises NotFound("alias_not_found"), and Conflict("in_use") where a saved composition needs it."""
        with self._database.writing() as session:
            saved_compositions.refuse_if_needed(
                saved_compositions.depending_on_alias(session, name, alias),
                f"the alias {f'{name}@{alias}'!r}",
            )
            drop_alias(session, name, alias)

    def save_composition(self, name: str, composition: Composition) -> bool:
        """Whether it is new. Raises Conflict name_reserved or name_taken, NotFound, InvalidRequest."""
        self._check_free(name)
        with self._database.writing() as session:
            return saved_compositions.insert(session, name, composition)

    def composition(self, name: str) -> Composition:
        """NotFound("composition_not_found") where there is none of that name."""
        with self._database.reading() as session:
            return parse(saved_compositions.get(session, name).text)

    def compositions(self) -> dict[str, Composition]:
        """All saved ones, by name, with their references as written."""
        with self._database.reading() as session:
            return saved_compositions.every(session)

    def delete_composition(self, name: str) -> None:
        """NotFound("composition_not_found") where there is none of that name."""
        with self._database.writing() as session:
            session.delete(saved_compositions.get(session, name))

    def derived(self, key: str) -> Path | None:
        """The folder of the merge cached under `key`, if it is there and whole."""
        with self._database.reading() as session:
            row = session.get(DerivedRow, key)
            content = row.content if row else None
        with storage_faults():
            return self._store.path(content.digest) if content and self._store.holds(content) else None

    def derived_report(self, key: str) -> dict[str, Any] | None:
        """What `add_derived` was told about the merge."""
        with self._database.reading() as session:
            row = session.get(DerivedRow, key)
            return row.report if row else None

    def add_derived(self, key: str, staged: Path, report: Mapping[str, Any], members: Iterable[str]) -> Path:
        """Take a merge's two files out of `staged` and cache them until one of `members` (digests) goes."""
        with ExitStack() as end:
            with storage_faults():
                sealed = end.enter_context(self._store.sealed(staged))
            with self._database.writing() as session:
                insert_derived(session, key, sealed.content, report, members)
                self._store.install(sealed)
            return self._store.path(sealed.content.digest)

    def sweep(self, keep: Collection[str] = ()) -> set[str]:
        """Delete the contents that no row names and that are not among `keep`, digests in use; which went.

        A merge stays while all its members do."""
        with self._database.writing() as session:
            forget_without_members(session, keep)
        # A second transaction, so that no row names files that are gone if we are killed between the two.
        with self._database.writing() as session:
            doomed = self._store.digests() - named_digests(session) - set(keep)
            for digest in doomed:
                self._store.remove(digest)
        return doomed

    def check_integrity(self) -> None:
        """Raises AssertionError naming what rows, aliases, compositions and files do not agree on."""
        with self._database.reading() as session:
            check_rows(session, self._store)

    def _look_up(self, name: str, ref: str | None) -> Version:
        with self._database.reading() as session:
            return as_version(find(session, name, ref), self._store)

    def _check_free(self, name: str) -> None:
        if check_name(name) in self._reserved:
            raise Conflict(Code.NAME_RESERVED, f"{name!r} is reserved.", "name")
