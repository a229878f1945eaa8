import hashlib
import os
import socket
import time
from pathlib import Path

import pytest

from lora_compose.adapters.errors import AdapterRejected
from lora_compose.adapters.peft.files import CONFIG_FILE, WEIGHTS_FILE
from lora_compose.adapters.registry.store import Content, Store, content_of, copy_regular
from tests.adapters.registries import write_files


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "data")
    store.create()
    return store


def put(store: Store, text: str) -> Content:
    with store.staging() as staged, store.sealed(write_files(staged, text)) as sealed:
        store.install(sealed)
        return sealed.content


def test_the_digest_is_the_hash_of_the_two_files_hashes(tmp_path: Path) -> None:
    write_files(tmp_path, "weights")
    parts = [hashlib.sha256(text).digest() for text in (b"{}", b"weights")]
    assert content_of(tmp_path) == Content(hashlib.sha256(parts[0] + parts[1]).hexdigest(), 2, 7)


def test_what_is_installed_is_whole_and_read_only(store: Store) -> None:
    content = put(store, "weights")
    place = store.path(content.digest)
    assert store.is_intact(content)
    assert [oct(path.stat().st_mode & 0o777) for path in (place, *sorted(place.iterdir()))] == [
        "0o555",
        "0o444",
        "0o444",
    ]
    assert not list(store.staging_dir.iterdir())


def test_installing_again_repairs_damaged_files(store: Store) -> None:
    content = put(store, "weights")
    weights = store.path(content.digest) / WEIGHTS_FILE
    weights.chmod(0o644)
    weights.write_text("wEights")
    assert store.holds(content)
    assert not store.is_intact(content)
    assert put(store, "weights") == content
    assert store.is_intact(content)


@pytest.mark.parametrize("name", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_missing_or_cut_file_is_noticed_without_reading(store: Store, name: str) -> None:
    content = put(store, "weights")
    place = store.path(content.digest)
    place.chmod(0o755)
    (place / name).unlink()
    assert not store.holds(content)
    (place / name).write_text("w")
    assert not store.holds(content)


def test_removed_content_is_gone_although_it_was_read_only(store: Store) -> None:
    content = put(store, "weights")
    store.remove(content.digest)
    assert store.digests() == set()
    assert not list(store.staging_dir.iterdir())


def test_a_start_empties_the_temporary_folder(store: Store) -> None:
    left = write_files(store.staging_dir / "half" / "deep", "left")
    left.chmod(0o555)
    (store.staging_dir / "stray").write_text("left")
    (store.staging_dir / "link").symlink_to(store.contents)
    store.create()
    assert not list(store.staging_dir.iterdir())
    assert store.contents.is_dir()


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        started = time.monotonic()
        for source in (
            tmp_path / "fifo",
            tmp_path / "link",
            tmp_path / "socket",
            tmp_path,
            Path("/dev/zero"),
        ):
            with pytest.raises(AdapterRejected) as refused:
                copy_regular(source, tmp_path / WEIGHTS_FILE, 100)
            assert refused.value.code == "not_a_regular_file"
            assert not (tmp_path / WEIGHTS_FILE).exists()
        assert time.monotonic() - started < 1


@pytest.mark.parametrize(
    ("name", "code"), [(CONFIG_FILE, "bad_adapter_config"), (WEIGHTS_FILE, "weights_too_large")]
)
def test_a_file_beyond_the_limit_is_not_copied_to_its_end(tmp_path: Path, name: str, code: str) -> None:
    (tmp_path / "source").write_bytes(bytes(1001))
    (tmp_path / "copy").mkdir()
    with pytest.raises(AdapterRejected) as refused:
        copy_regular(tmp_path / "source", tmp_path / "copy" / name, 1000)
    assert refused.value.code == code


@pytest.mark.parametrize(
    ("name", "code"), [(CONFIG_FILE, "missing_config"), (WEIGHTS_FILE, "missing_weights")]
)
def test_both_files_must_be_there(store: Store, name: str, code: str) -> None:
    with store.staging() as staged:
        (write_files(staged, "weights") / name).unlink()
        with pytest.raises(AdapterRejected) as refused, store.sealed(staged):
            pass
    assert refused.value.code == code
    assert not list(store.staging_dir.iterdir())


def test_a_folder_left_writable_by_a_killed_repair_is_sealed_at_the_start(store: Store) -> None:
    content = put(store, "weights")
    store.path(content.digest).chmod(0o755)
    store.create()
    assert store.path(content.digest).stat().st_mode & 0o777 == 0o555
    assert store.is_intact(content)


def test_a_folder_goes_away_without_a_descriptor(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object, **__: object) -> int:
        raise OSError(24, "Too many open files")

    with store.staging() as staged:
        write_files(staged, "half")
        monkeypatch.setattr(os, "open", none_left)
        monkeypatch.setattr(os, "scandir", none_left)
    assert not staged.exists()
