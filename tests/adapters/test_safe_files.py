import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.adapters.safe_files import (
    MAX_LINKS,
    ConfinedDirectory,
    OutsideRoots,
    confined_directory,
    open_regular,
)
from tests.repeated import repeated

FILE = "adapter_config.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with `a/` and `b/`. Each has a file with its own name in it. `outside/` lies beside the root."""
    for directory in ("root/a", "root/b", "outside", "other"):
        (tmp_path / directory).mkdir(parents=True)
        (tmp_path / directory / FILE).write_text(directory)
    return tmp_path / "root"


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Every test leaves as many open files as it found."""
    before = psutil.Process().num_fds()
    yield
    assert psutil.Process().num_fds() == before


def read(directory: ConfinedDirectory, name: str = FILE) -> str:
    with directory.open_regular(name, Code.MISSING_CONFIG) as file:
        return file.read().decode()


def read_in(roots: list[Path], path: Path | str) -> str:
    with confined_directory(roots, str(path)) as directory:
        return read(directory)


def test_what_is_opened_stays_the_same_whatever_takes_its_place(root: Path) -> None:
    with confined_directory([root], str(root / "a")) as directory:
        (root / "a").rename(root / "moved")
        (root / "a").symlink_to(root.parent / "outside")
        assert directory.names() == [FILE]
        assert read(directory) == "root/a"


def linked(root: Path, link: str, target: str | Path) -> Path:
    place = root / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(target)
    return place.parent


def test_a_hub_snapshot_is_read_through_its_links(root: Path) -> None:
    (root / "models--o--r" / "blobs").mkdir(parents=True)
    (root / "models--o--r" / "blobs" / "f00d").write_text("blob")
    snapshot = linked(root, f"models--o--r/snapshots/abc/{FILE}", "../../blobs/f00d")
    assert read_in([root], snapshot) == "blob"
    linked(root, "current", "models--o--r/snapshots/abc")
    assert read_in([root], root / "current") == "blob"


def test_a_kubernetes_volume_is_read_through_its_links(root: Path) -> None:
    (root / "..2026_01_01.1").mkdir()
    (root / "..2026_01_01.1" / FILE).write_text("mounted")
    linked(root, "..data", "..2026_01_01.1")
    linked(root, FILE, f"..data/{FILE}")
    assert read_in([root], root) == "mounted"
    assert read_in([root], root / "..data") == "mounted"


@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_from_one_root_into_another_is_followed(root: Path, absolute: bool) -> None:
    other = root.parent / "other"
    directory = linked(root, f"c/{FILE}", other / FILE if absolute else f"../../other/{FILE}")
    assert read_in([root, other], directory) == "other"
    with pytest.raises(OutsideRoots):
        read_in([root], directory)


def test_hard_links_and_chains_of_links_are_read(root: Path) -> None:
    os.link(root / "a" / FILE, root / "b" / "hard")
    for number in range(MAX_LINKS - 1):
        linked(root, f"l{number}", f"l{number + 1}")
    linked(root, f"l{MAX_LINKS - 1}", "b/hard")
    with confined_directory([root], str(root)) as directory:
        assert read(directory, "l0") == "root/a"


def test_a_root_may_be_a_link_and_may_be_named_by_either_path(root: Path) -> None:
    link = root.parent / "link-to-root"
    link.symlink_to(root)
    linked(root, f"c/{FILE}", link / "a" / FILE)
    linked(root, f"d/{FILE}", root / "b" / FILE)
    for roots in ([link], [root]):
        for spelling in (link, root):
            assert read_in(roots, spelling / "c") == "root/a"
            assert read_in(roots, spelling / "d") == "root/b"


def test_a_path_relative_to_the_working_directory(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root / "a")
    assert read_in([root], "../b") == "root/b"
    assert read_in([root], "") == "root/a"
    with pytest.raises(OutsideRoots):
        read_in([root], "../../outside")


LEAVING = ("../../outside", "../../nothing", "/etc", "/nothing", "/", "..", "/proc/self/root/etc", "/dev")


@pytest.mark.parametrize("target", LEAVING)
def test_a_directory_link_that_leaves_is_outside_whether_its_end_exists(root: Path, target: str) -> None:
    directory = linked(root, "sub/link", target)
    if target == "..":  # one level up from `sub` is the root
        target = "../.."
        directory = linked(root, "sub/link", target)
    with pytest.raises(OutsideRoots):
        read_in([root], directory / "link")


@pytest.mark.parametrize("target", ["/etc/hostname", "/nothing", "../../outside/" + FILE, "/dev/zero", "/"])
def test_a_file_link_that_leaves_is_outside_whether_its_end_exists(root: Path, target: str) -> None:
    directory = linked(root, f"c/{FILE}", target)
    with pytest.raises(OutsideRoots):
        read_in([root], directory)


@pytest.mark.parametrize(
    "path", ["/etc", "/nothing", "..", "a/../..", "\0", "a/\0", "x" * 5000, "/" + "x" * 5000, "\ud800"]
)
def test_a_path_outside_is_outside_whatever_it_is(root: Path, path: str) -> None:
    if path in {"..", "a/../.."}:
        path = str(root / path)
    with pytest.raises(OutsideRoots):
        read_in([root], path)


def test_loops_of_links_end(root: Path) -> None:
    linked(root, f"c/{FILE}", FILE)
    with pytest.raises(AdapterRejected) as refused:
        read_in([root], root / "c")
    assert refused.value.code == "not_a_regular_file"
    linked(root, "one", "two")
    linked(root, "two", "one")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        read_in([root], root / "one")
    linked(root.parent / "outside", "loop", "loop")
    with pytest.raises(OutsideRoots):
        read_in([root], root.parent / "outside" / "loop")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        read_in([root], str(root) + "/a/.." * 1000)


def make_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(path)


@pytest.mark.parametrize("through_link", [True, False])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, make_socket])
def test_only_regular_files_are_opened(root: Path, make: Callable[[str], None], through_link: bool) -> None:
    (root / "b" / FILE).unlink()
    make(str(root / "b" / ("other" if through_link else FILE)))
    if through_link:
        linked(root, f"b/{FILE}", "other")
    with pytest.raises(AdapterRejected) as refused:
        read_in([root], root / "b")
    assert refused.value.code == "not_a_regular_file"


def test_a_missing_file_and_a_dangling_link_have_their_own_words(root: Path) -> None:
    (root / "a" / FILE).unlink()
    with pytest.raises(AdapterRejected, match="has no file"):
        read_in([root], root / "a")
    linked(root, f"a/{FILE}", "gone")
    with pytest.raises(AdapterRejected, match="link to a file that does not exist") as refused:
        read_in([root], root / "a")
    assert refused.value.code == "missing_config"
    with pytest.raises(NotADirectoryError):
        read_in([root], root / "b" / FILE)
    with pytest.raises(FileNotFoundError):
        read_in([root], root / "nothing" / "deep")


def test_a_directory_on_the_way_needs_no_read_permission(root: Path) -> None:
    if os.getuid() == 0:
        pytest.skip("the superuser may read everything")
    root.parent.chmod(0o311)
    assert read_in([root], root / "a") == "root/a"
    root.parent.chmod(0o755)


def test_the_user_of_a_command_may_name_links_to_anything(root: Path) -> None:
    linked(root, "link", root.parent / "outside" / FILE)
    with open_regular(root / "link", Code.MISSING_CONFIG) as file:
        assert file.read() == b"outside"
    linked(root, "link", "/dev/zero")
    with pytest.raises(AdapterRejected):
        open_regular(root / "link", Code.MISSING_CONFIG)


@contextmanager
def exchanged(place: Path, one: Path | str, other: Path | str) -> Iterator[None]:
    """Another thread makes `place` a link to `one` and to `other` in turn, in one step each time."""
    spare = place.with_name("spare")

    def exchange() -> None:
        for target in (one, other):
            spare.symlink_to(target)
            spare.rename(place)

    with repeated(exchange):
        yield


@pytest.mark.parametrize("kind", ["file", "directory", "directory on the way"])
def test_a_link_that_is_exchanged_all_the_time_never_leads_outside(root: Path, kind: str) -> None:
    outside = root.parent / "outside"
    (outside / "a").mkdir()
    (outside / "a" / FILE).write_text("outside")
    place, inner, outer, path = {
        "file": (root / "c" / FILE, root / "a" / FILE, outside / FILE, root / "c"),
        "directory": (root / "c" / "link", root / "a", outside, root / "c" / "link"),
        "directory on the way": (root / "c" / "way", root, outside, root / "c" / "way" / "a"),
    }[kind]
    linked(root, str(place.relative_to(root)), inner)
    seen = {"root/a": 0, "outside": 0}
    with exchanged(place, inner, outer):
        for _ in range(4_000):
            try:
                text = read_in([root], path)
            except OutsideRoots:
                seen["outside"] += 1
            else:
                assert text == "root/a"
                seen[text] += 1
    assert min(seen.values()) > 20, seen


def test_a_file_that_turns_into_a_link_while_it_is_opened_never_leads_outside(root: Path) -> None:
    """The exchange is between a plain file and a link, so the kind of the file changes."""
    place, file, link = root / "c" / FILE, root / "plain", root / "link"
    place.parent.mkdir()
    done = threading.Event()

    def exchange() -> None:
        while not done.is_set():
            file.write_text("root/a")
            file.rename(place)
            link.symlink_to(root.parent / "outside" / FILE)
            link.rename(place)

    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        texts = set()
        for _ in range(4_000):
            try:
                texts.add(read_in([root], root / "c"))
            except (OutsideRoots, AdapterRejected):
                texts.add("refused")
    finally:
        done.set()
        thread.join()
    assert texts == {"root/a", "refused"}
