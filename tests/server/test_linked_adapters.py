"""Adapters as they lie on disks: links in the cache of the Hub, in Kubernetes volumes and of DVC."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from lora_compose.adapters.registry.store import content_of
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.repeated import repeated
from tests.server.app_without_engine import AppWithoutEngine

GOOD = ADAPTERS_DIR / "roll"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FILES = (CONFIG, WEIGHTS)


@pytest.fixture
def root(plain: AppWithoutEngine, tmp_path: Path) -> Path:
    """A new directory inside an --adapter-root. `tmp_path` is outside."""
    directory = plain.data_dir.parent / tmp_path.name
    directory.mkdir()
    return directory


def register(http: httpx.Client, path: Path, name: str = "linked") -> httpx.Response:
    return http.post("/v1/adapters", json={"name": name, "path": str(path)})


def code(reply: httpx.Response) -> Any:
    return reply.json().get("error", {}).get("code")


def hub(root: Path) -> Path:
    """The snapshot of a repository in the cache of the Hub."""
    blobs, snapshot = root / "models--o--r" / "blobs", root / "models--o--r" / "snapshots" / "f00d"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, name in enumerate(FILES):
        shutil.copy(GOOD / name, blobs / str(number))
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    return snapshot


def volume(root: Path) -> Path:
    """A ConfigMap, Secret or projected volume of Kubernetes."""
    shutil.copytree(GOOD, root / "volume" / "..2026_01_01")
    (root / "volume" / "..data").symlink_to("..2026_01_01")
    for name in FILES:
        (root / "volume" / name).symlink_to(f"..data/{name}")
    return root / "volume"


def hard_links(root: Path) -> Path:
    (root / "hard").mkdir()
    (root / "cache").mkdir()
    for name in FILES:
        shutil.copy(GOOD / name, root / "cache" / name)
        os.link(root / "cache" / name, root / "hard" / name)
    return root / "hard"


def into_another_root(root: Path) -> Path:
    (root / "dvc").mkdir()
    for name in FILES:
        (root / "dvc" / name).symlink_to(GOOD / name)
    return root / "dvc"


def a_linked_directory(root: Path) -> Path:
    (root / "current").symlink_to(GOOD)
    return root / "current"


@pytest.mark.parametrize("layout", [hub, volume, hard_links, into_another_root, a_linked_directory])
def test_an_adapter_of_links_is_the_adapter_itself(plain_http: httpx.Client, root: Path, layout: Any) -> None:
    reply = register(plain_http, layout(root))
    assert reply.status_code in {200, 201}, reply.text
    assert reply.json()["digest"] == content_of(GOOD).digest


@pytest.mark.parametrize("name", FILES)
def test_a_link_to_a_cache_outside_is_refused_with_what_to_do(
    plain_http: httpx.Client, root: Path, tmp_path: Path, name: str
) -> None:
    shutil.copytree(GOOD, root / "a")
    (root / "a" / name).rename(tmp_path / name)
    for target in (tmp_path / name, tmp_path / "nothing"):
        (root / "a" / name).unlink(missing_ok=True)
        (root / "a" / name).symlink_to(target)
        reply = register(plain_http, root / "a")
        assert (reply.status_code, code(reply)) == (403, "path_not_allowed")
        assert "Copy the file itself" in reply.json()["error"]["message"]
        assert str(tmp_path) not in reply.text


def test_a_directory_of_adapters_is_refused_with_their_names(plain_http: httpx.Client, root: Path) -> None:
    for name in ("checkpoint-9", "checkpoint-10", "style"):
        shutil.copytree(GOOD, root / name)
    reply = register(plain_http, root)
    assert (reply.status_code, code(reply)) == (422, "missing_config")
    assert "checkpoint-9, checkpoint-10, style" in reply.json()["error"]["message"]


def test_a_path_to_a_file_is_refused_for_what_it_is(plain_http: httpx.Client, root: Path) -> None:
    shutil.copytree(GOOD, root / "a")
    (root / "a.zip").touch()
    for path, words in (
        (root / "a" / WEIGHTS, "directory of the adapter's two files"),
        (root / "a.zip", "archive"),
    ):
        reply = register(plain_http, path)
        assert (reply.status_code, code(reply)) == (400, "invalid_source")
        assert words in reply.json()["error"]["message"]
    assert code(register(plain_http, root / "a" / WEIGHTS / "x")) == "invalid_source"


def test_a_loop_of_links_is_refused_for_what_it_is(plain_http: httpx.Client, root: Path) -> None:
    (root / "loop").symlink_to("loop")
    reply = register(plain_http, root / "loop")
    assert (reply.status_code, code(reply)) == (422, "not_a_regular_file")


@contextmanager
def updated_all_the_time(link: Path, *targets: str) -> Iterator[None]:
    """Another thread sets `link` to the targets in turn, as Kubernetes updates a volume."""

    def update() -> None:
        for target in targets:
            link.with_name("..data_tmp").symlink_to(target)
            link.with_name("..data_tmp").rename(link)

    with repeated(update):
        yield


def test_a_volume_updated_while_it_is_read_never_mixes_two_adapters(
    plain_http: httpx.Client, root: Path
) -> None:
    directory = volume(root)
    newer = Path(shutil.copytree(ADAPTERS_DIR / "upper", directory / "..2026_01_02"))
    config = json.loads((newer / CONFIG).read_text())
    (newer / CONFIG).write_text(json.dumps(config | {"lora_alpha": config["lora_alpha"] * 2}))
    whole = {content_of(GOOD).digest, content_of(newer).digest}
    digests = set()
    with updated_all_the_time(directory / "..data", "..2026_01_01", "..2026_01_02"):
        for _ in range(40):
            reply = register(plain_http, directory)
            digests.add(reply.json().get("digest", code(reply)))
    assert digests & whole
    assert digests <= whole | {"storage_unavailable"}
