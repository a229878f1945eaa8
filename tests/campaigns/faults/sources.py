"""Faults of an adapter's source: paths, links, devices and hubs."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx

from tests.campaigns.faults.broken_adapter import CONFIG, WEIGHTS, made, rejected
from tests.campaigns.faults.fault import Act, Fault, checked, refused
from tests.campaigns.faults.target import GOOD, Target
from tests.repeated import repeated

OUTSIDE = (
    "/etc", "/proc/self", "/proc/self/root", "/dev", "/nonexistent/x", "~", "~root", "../..", "x/../..", ".",
    "", "\0", "/" + "x" * 5000, "//etc", "/etc/../etc", "file:///etc", "http://127.0.0.1/x", "$HOME",
    "/\u202eetc", "\\\\host\\share",
)  # fmt: skip
REMOTE = (
    "org/repo", "org/repo@main", "http://169.254.169.254/latest/meta-data", "https://example.org/x",
    "s3://b/k", "file:///etc/passwd", "../x", "", "a" * 5000,
)  # fmt: skip
TAKES = 30
GONE = (
    (404, "path_not_found"),
    (404, "adapter_not_found"),
    (422, "missing_config"),
    (422, "missing_weights"),
    (422, "not_a_regular_file"),
)
"""Allowed replies for a directory that exists at one moment and not at the next."""


def _from(path: str) -> Act:
    return refused("403 path_not_allowed", "400 invalid_source", send=lambda target: target.register(path))


def _from_hub(reference: str, target: Target) -> httpx.Response:
    return target.http.post("/v1/adapters", json={"name": "case", "hf": reference})


def _same_body(target: Target) -> list[str]:
    replies = [target.register(path) for path in OUTSIDE if path.startswith("/") and "\0" not in path]
    assert len({reply.text for reply in replies}) == 1, "the bodies differ"
    return ["403 path_not_allowed"] * len(replies)


def _linked(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.symlink_to("/etc")


def _linked_file(name: str, end: str) -> Act:
    def broken(directory: Path) -> None:
        (directory / name).unlink()
        (directory / name).symlink_to(end)

    return refused("403 path_not_allowed", send=lambda target: target.register(made(target, broken)))


def _fifo(name: str) -> Act:
    def broken(directory: Path) -> None:
        (directory / name).unlink()
        os.mkfifo(directory / name)

    return rejected("not_a_regular_file", broken)


def _socket(name: str) -> Act:
    def broken(directory: Path) -> None:
        (directory / name).unlink()
        with socket.socket(socket.AF_UNIX) as bound:
            # The address of a socket must be short, but the path of a temporary directory may be long.
            descriptor = os.open(directory, os.O_RDONLY)
            bound.bind(f"/proc/self/fd/{descriptor}/{name}")
            os.close(descriptor)

    return rejected("not_a_regular_file", broken)


def _folder(name: str) -> Act:
    def broken(directory: Path) -> None:
        (directory / name).unlink()
        (directory / name).mkdir()

    return rejected("not_a_regular_file", broken)


def _loop(name: str) -> Act:
    def broken(directory: Path) -> None:
        (directory / name).unlink()
        (directory / name).symlink_to(name)

    return rejected("not_a_regular_file", broken)


def _swapped(target: Target) -> Iterator[str]:
    """A directory that is a good adapter at one moment and a link out of the root at the next."""
    good = made(target, lambda _: None)
    kept, out = good.with_name("kept"), good.with_name("out")
    shutil.rmtree(kept, ignore_errors=True)
    out.unlink(missing_ok=True)
    out.symlink_to("/etc")
    with _swapping(good, kept, out):
        yield from _registered_or_refused(target, good)


def _swapped_file(target: Target) -> Iterator[str]:
    """A weights file that is a link to a good file at one moment and a link out of the root at the next."""
    directory = made(target, lambda _: None)
    inner = directory / "inner"
    (directory / WEIGHTS).rename(inner)
    with tempfile.TemporaryDirectory() as outside:
        other = shutil.copy(GOOD.with_name("upper") / WEIGHTS, outside)
        with _exchanging(directory / WEIGHTS, inner, Path(other)):
            yield from _registered_or_refused(target, directory)


def _registered_or_refused(target: Target, directory: Path) -> Iterator[str]:
    for _ in range(TAKES):
        reply = target.register(directory)
        yield checked(reply, "201", "200", "403 path_not_allowed", *(f"{s} {c}" for s, c in GONE))
        if reply.status_code < 300:
            assert reply.json()["digest"] == target.http.get("/v1/adapters/roll").json()["digest"]
    target.http.delete("/v1/adapters/case")


@contextmanager
def _swapping(good: Path, kept: Path, out: Path) -> Iterator[None]:
    def swap() -> None:
        good.rename(kept)
        out.rename(good)
        good.rename(out)
        kept.rename(good)

    with repeated(swap):
        yield
    out.unlink(missing_ok=True)


@contextmanager
def _exchanging(place: Path, *ends: Path) -> Iterator[None]:
    def exchange() -> None:
        for end in ends:
            place.with_name("spare").symlink_to(end)
            place.with_name("spare").rename(place)

    exchange()
    with repeated(exchange):
        yield


def _extra_files(target: Target) -> list[str]:
    """Other files beside the two adapter files are not copied."""

    def beside(directory: Path) -> None:
        for name in ("evil.py", "tokenizer.json", "conftest.py", ".hidden"):
            (directory / name).write_text("raise SystemExit")
        with (directory / "README.md").open("wb") as readme:
            readme.truncate(1 << 30)

    with target.registered(made(target, beside)) as version:
        stored = sorted(path.name for path in (target.data_dir / "store" / version["digest"]).iterdir())
    assert stored == [CONFIG, WEIGHTS]
    return ["201, not copied"]


FILES = (CONFIG, WEIGHTS)
FAULTS = (
    Fault(
        "A path outside the allowed roots", {repr(path)[:60]: _from(path) for path in OUTSIDE}, audited=True
    ),
    Fault("Whether the reply shows that a path outside exists", {"equal to the byte": _same_body}),
    Fault(
        "A link out of the root",
        {
            "a directory": refused("403 path_not_allowed", send=lambda t: t.register(made(t, _linked))),
            **{
                f"{name} to {end}": _linked_file(name, end)
                for name in FILES
                for end in ("/etc/hostname", "/nothing", "/dev/zero", "../../../../../../etc/hostname")
            },
        },
        audited=True,
    ),
    Fault("A directory replaced with a link out of the root while it is read", {"thirty times": _swapped}),
    Fault(
        "A link of a file exchanged for a link out of the root while it is read",
        {"thirty times": _swapped_file},
    ),
    Fault(
        "A FIFO, socket, directory or loop of links in place of a file",
        {
            f"{kind.__name__[1:]}: {name}": kind(name)
            for kind in (_fifo, _socket, _folder, _loop)
            for name in FILES
        },
        audited=True,
    ),
    Fault(
        "A hub id or a URL while the Hub is not allowed",
        {
            repr(reference)[:60]: refused(
                "400 source_not_allowed",
                send=partial(_from_hub, reference),
            )
            for reference in REMOTE
        },
        audited=True,
    ),
    Fault(
        "A missing directory, config or weights file",
        {
            "no directory": refused(
                "404 path_not_found", "404 adapter_not_found", send=lambda t: t.register(t.root / "nothing")
            ),
            "no config": rejected("missing_config", lambda path: (path / CONFIG).unlink()),
            "no weights": rejected("missing_weights", lambda path: (path / WEIGHTS).unlink()),
        },
        audited=True,
    ),
    Fault("Code and a gigabyte of data next to the two files", {"five files": _extra_files}),
)
