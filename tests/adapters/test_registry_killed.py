import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.registry.store import Store
from tests.adapters.registries import add_merge, register, weights_of, write_files

WORKER = """
import itertools, sys
from pathlib import Path
from lora_compose.adapters.registry.registry import Registry
from tests.adapters.registries import add_merge, register
with Registry(Path(sys.argv[1])) as registry:
    for number in itertools.count(1):
        version, _ = register(registry, "sql", f"content {number}")
        registry.set_alias("sql", "prod")
        add_merge(registry, f"key {number}", f"merge {number}", [version.digest])
        if number % 3 == 0:
            registry.remove("sql", str(number - 1))
            registry.sweep()
        print(number, flush=True)
"""


def left_by(data_dir: Path, text: str) -> str:
    """Put files into the store like a process that is killed before it commits the row. Returns a digest."""
    store = Store(data_dir)
    with store.staging() as staged, store.sealed(write_files(staged, text)) as sealed:
        store.install(sealed)
        return sealed.content.digest


def test_files_without_a_row_are_swept_at_the_start(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry:
        version, _ = register(registry, "sql", "one")
    orphan = left_by(tmp_path, "two")
    write_files(tmp_path / "tmp" / "half", "half a copy")
    with Registry(tmp_path) as registry:
        assert {path.name for path in (tmp_path / "store").iterdir()} == {version.digest} != {orphan}
        assert not list(registry.staging_dir.iterdir())
        registry.check_integrity()
        assert register(registry, "sql", "two")[0].number == 2


def test_a_removal_killed_before_its_sweep_is_finished_at_the_start(tmp_path: Path) -> None:
    with Registry(tmp_path) as registry:
        member, _ = register(registry, "sql", "one")
        add_merge(registry, "key", "merged", [member.digest])
        registry.remove("sql")
    with Registry(tmp_path) as registry:
        assert registry.merges.find("key") is None
        assert not list((tmp_path / "store").iterdir())


@pytest.mark.parametrize("delay", [0.02, 0.11, 0.23])
def test_killed_at_any_moment_it_comes_back_with_all_that_was_acknowledged(
    tmp_path: Path, delay: float
) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout
    first = worker.stdout.readline()
    time.sleep(delay)
    os.kill(worker.pid, signal.SIGKILL)
    acknowledged = int((first + worker.communicate()[0]).split()[-1])
    with Registry(tmp_path) as registry:
        registry.check_integrity()
        alive = {version.number: weights_of(version) for version in registry.versions("sql")}
        assert set(alive) >= {n for n in range(1, acknowledged + 1) if (n + 1) % 3}
        assert all(text == f"content {number}" for number, text in alive.items())
        assert not list(registry.staging_dir.iterdir())
        assert register(registry, "sql", "new")[0].number > max(alive)
