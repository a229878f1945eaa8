"""The registry of adapters, aliases, saved compositions and cached merges in one data directory.

The database says what exists, and the store has the files. A row is committed after its files are in the
store, and `sweep` deletes files that no row names, so a killed process leaves nothing incomplete. One process
owns a data directory. Any thread of it may call any method. Admission checks adapters before they come here.
"""

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self

from lora_compose.adapters.composition.composition import METHOD_NAMES, SPELLINGS, Composition
from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import Code, CommandCode, Conflict, NotFound
from lora_compose.adapters.names import check_name
from lora_compose.adapters.peft.files import MAX_WEIGHTS_BYTES
from lora_compose.adapters.registry.bases import Bases
from lora_compose.adapters.registry.data_dir import acquire, directory_lock, pair
from lora_compose.adapters.registry.database import Database, sqlite_url, storage_faults
from lora_compose.adapters.registry.integrity import check_rows
from lora_compose.adapters.registry.kept import Kept
from lora_compose.adapters.registry.merge_cache import (
    MergeCache,
    delete_without_members,
    referenced_digests,
)
from lora_compose.adapters.registry.retention import Retention, steady_clock
from lora_compose.adapters.registry.saved_compositions import (
    all_compositions,
    depending_on_alias,
    depending_on_versions,
    get_composition,
    insert_composition,
    refuse_if_needed,
    refuse_use_of_name,
)
from lora_compose.adapters.registry.store import Store, Version, copy_adapter
from lora_compose.adapters.registry.versions import (
    Admitted,
    Terms,
    adapter_names,
    aliases_by_version,
    aliases_of,
    all_versions,
    as_version,
    count_adapters,
    damaged,
    drop_alias,
    find_content,
    find_version,
    insert_version,
    newest_versions,
    point_alias,
    set_facts,
    set_terms,
    versions_of,
)

logger = logging.getLogger(__name__)


class Registry:
    """The registry in `data_dir`. It owns the directory until `close` or the end of its `with` block.

    `merges`, `bases`, `kept` and `retention` are its parts that do not concern one adapter."""

    def __init__(
        self,
        data_dir: Path,
        database_url: str | None = None,
        *,
        reserved: Collection[str] = (),
        readonly: bool = False,
    ) -> None:
        """`reserved` names, such as the name of the base, are refused, as are names of methods.

        Raises Conflict data_dir_in_use, wrong_database, schema_too_new, schema_too_old; StorageUnavailable;
        NotFound."""
        self._reserved = {*reserved, *METHOD_NAMES, *SPELLINGS}
        self._store = Store(data_dir)
        self._lock = directory_lock(data_dir)
        if readonly and database_url is None and not Path(str(sqlite_url(data_dir).database)).is_file():
            raise NotFound(CommandCode.NO_REGISTRY, "There is no registry in this data directory.")
        self._database = Database(database_url or sqlite_url(data_dir), readonly)
        self.merges = MergeCache(self._database, self._store)
        self.bases = Bases(self._database)
        self.kept = Kept(self._database)
        self.retention = Retention(self._database, self._store, steady_clock())
        with ExitStack() as undo:
            undo.callback(self.close)
            if readonly:
                self._database.require_schema()
            else:
                self._take_ownership(data_dir)
            undo.pop_all()

    def reserve(self, names: Collection[str]) -> None:
        """Refuse these names too from now on."""
        self._reserved |= set(names)

    @classmethod
    def open_readonly(cls, data_dir: Path, database_url: str | None = None) -> "Registry":
        """Open for reading, even while a server owns the directory. It takes no lock and deletes nothing."""
        return cls(data_dir, database_url, readonly=True)

    def _take_ownership(self, data_dir: Path) -> None:
        with storage_faults():
            data_dir.mkdir(parents=True, exist_ok=True)
            acquire(self._lock)
            self._store.create()
        self._database.migrate()
        with self._database.writing() as session:
            pair(session, data_dir, empty=not self._store.digests())
        self.retention.limit_to_ttl()
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
        """A directory on the disk of the store for files that are being added. The next start empties it."""
        return self._store.staging_dir

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty directory in which the caller writes the two files. It is deleted at the end."""
        with ExitStack() as stack:
            with storage_faults():
                staged = stack.enter_context(self._store.staging())
            yield staged

    @contextmanager
    def stage(
        self, config: Path | BinaryIO, weights: Path | BinaryIO, max_bytes: int = MAX_WEIGHTS_BYTES
    ) -> Iterator[Path]:
        """A directory with copies of two regular files or two open files. It is deleted at the end.

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
        terms: Terms = Terms(),  # noqa: B008  it is frozen
    ) -> tuple[Version, bool]:
        """Move the two files out of `staged` and register them as a version of `name`.

        Returns (the version, whether it is new). If a version of `name` has the same bytes, it is kept: its
        facts and its expiry are updated, the base is added, and damaged files are repaired. `lineage` is
        JSON-able. Raises InvalidRequest("invalid_name"), Conflict("name_reserved")."""
        self._check_free(name)
        with ExitStack() as stack:
            with storage_faults():
                sealed = stack.enter_context(self._store.sealed(staged))
            with self._database.writing() as session:
                refuse_use_of_name(session, name)
                row = find_content(session, name, sealed.content.digest)
                created = row is None
                row = row or insert_version(session, name, sealed.content)
                set_facts(row, facts, source, lineage)
                set_terms(row, terms, self.retention.clock())
                if terms.alias is not None:
                    point_alias(session, name, terms.alias, str(row.number))
                self._store.install(sealed)
                session.flush()
                version = as_version(row, self._store)
        logger.info("registered %s, rank %d, %d bytes", version.id, version.rank, version.bytes)
        return version, created

    def resolve(self, name: str, ref: str | None = None, bases: Collection[str] | None = None) -> Version:
        """The version for a number, an alias, or None (the newest).

        With `bases` (fingerprints), the newest is the newest that was admitted for one of them. A number or
        an alias may give a version of another base, and so may a name without any version for them. Raises
        NotFound("model_not_found"), StorageUnavailable("adapter_files_missing")."""
        version = self._look_up(name, ref, bases)
        with storage_faults():
            while not self._store.holds(version.content):
                # Perhaps `sweep` deleted the files after the look-up. Then the rows have changed too.
                before, version = version, self._look_up(name, ref, bases)
                if version == before:
                    raise damaged(version)
        return version

    def require_files(self, version: Version) -> None:
        """Raises StorageUnavailable("adapter_files_missing") if a file is missing or too short.

        It reads no bytes."""
        with storage_faults():
            if not self._store.holds(version.content):
                raise damaged(version)

    def verify(self, version: Version) -> None:
        """Like `require_files`, but it reads the files and compares the digest."""
        with storage_faults():
            if not self._store.is_intact(version.content):
                raise damaged(version)

    def names(self) -> list[str]:
        """The names of adapters that have a version, sorted."""
        with self._database.reading() as session:
            return adapter_names(session)

    def versions(self, name: str) -> list[Version]:
        """The versions of `name`, oldest first, even without files. Raises NotFound("model_not_found")."""
        with self._database.reading() as session:
            return [as_version(row, self._store) for row in versions_of(session, name)]

    def newest(self, bases: Collection[str] | None = None) -> list[Version]:
        """The newest version of each adapter, sorted by name, even if its files are missing.

        With `bases` (fingerprints), only versions that were admitted for one of them."""
        with self._database.reading() as session:
            return [as_version(row, self._store) for row in newest_versions(session, bases)]

    def catalogue(self) -> list[tuple[Version, list[str]]]:
        """All versions with their aliases, sorted by name, newest first. They are read in one transaction."""
        with self._database.reading() as session:
            aliases = aliases_by_version(session)
            rows = all_versions(session)
            return [(as_version(row, self._store), aliases[row.name, row.number]) for row in rows]

    def count(self) -> int:
        """The number of adapters that have a version."""
        with self._database.reading() as session:
            return count_adapters(session)

    def remove(self, name: str, ref: str | None = None, cascade: bool = False) -> list[Version]:
        """Remove one version, or all if `ref` is None, and their aliases. Returns the removed versions.

        The files stay until `sweep`. `cascade` also removes saved compositions that would no longer resolve.
        Without it they raise Conflict("in_use"). Raises NotFound("model_not_found")."""
        with self._database.writing() as session:
            rows = versions_of(session, name) if ref is None else [find_version(session, name, ref)]
            needing = depending_on_versions(session, rows)
            if not cascade:
                refuse_if_needed(needing, f"the adapter {name if ref is None else f'{name}@{ref}'!r}")
            for saved in needing:
                session.delete(get_composition(session, saved))
            removed = [as_version(row, self._store) for row in rows]
            for row in rows:
                session.delete(row)
        logger.info("removed %s", ", ".join(version.id for version in removed))
        return removed

    def aliases(self, name: str) -> dict[str, int]:
        """Alias to version number. Raises NotFound("model_not_found")."""
        with self._database.reading() as session:
            return aliases_of(session, name)

    def set_alias(self, name: str, alias: str, ref: str | None = None) -> Version:
        """Make `name@alias` point at the version `ref` names now. Raises NotFound("model_not_found")."""
        with self._database.writing() as session:
            return as_version(point_alias(session, name, alias, ref), self._store)

    def remove_alias(self, name: str, alias: str) -> None:
        """Raises NotFound("alias_not_found"), and Conflict("in_use") if a saved composition needs it."""
        with self._database.writing() as session:
            refuse_if_needed(
                depending_on_alias(session, name, alias),
                f"the alias {f'{name}@{alias}'!r}",
            )
            drop_alias(session, name, alias)

    def save_composition(self, name: str, composition: Composition) -> bool:
        """Save `composition`. Returns whether it is new.

        Raises Conflict name_reserved or name_taken, NotFound, InvalidRequest."""
        self._check_free(name)
        with self._database.writing() as session:
            return insert_composition(session, name, composition)

    def composition(self, name: str) -> Composition:
        """The saved composition `name`. Raises NotFound("composition_not_found")."""
        with self._database.reading() as session:
            return parse(get_composition(session, name).text)

    def compositions(self) -> dict[str, Composition]:
        """All saved compositions by name, with versions and aliases as the user wrote them."""
        with self._database.reading() as session:
            return all_compositions(session)

    def delete_composition(self, name: str) -> None:
        """Raises NotFound("composition_not_found")."""
        with self._database.writing() as session:
            session.delete(get_composition(session, name))

    def sweep(self, keep: Collection[str] = ()) -> set[str]:
        """Delete the contents that no row names and that are not in `keep` (digests in use).

        Returns the deleted digests. A merge is also deleted if one of its members is."""
        with self._database.writing() as session:
            delete_without_members(session, keep)
        # A second transaction deletes the files. If the process is killed between the two, no row names a
        # deleted file.
        with self._database.writing() as session:
            unused = self._store.digests() - referenced_digests(session) - set(keep)
            for digest in unused:
                self._store.remove(digest)
        return unused

    def check_integrity(self) -> None:
        """Raises AssertionError if rows, aliases, compositions and files do not agree."""
        with self._database.reading() as session:
            check_rows(session, self._store)

    def _look_up(self, name: str, ref: str | None, bases: Collection[str] | None) -> Version:
        with self._database.reading() as session:
            return as_version(find_version(session, name, ref, bases), self._store)

    def _check_free(self, name: str) -> None:
        if check_name(name) in self._reserved:
            raise Conflict(Code.NAME_RESERVED, f"{name!r} is a reserved name. Choose another name.", "name")
