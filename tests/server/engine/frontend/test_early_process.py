"""The process that engines are forked from. Here it imports nothing early, which takes no time."""

import json
import os
from pathlib import Path

import psutil
import pytest

from lora_compose.server.engine.frontend import early_process
from lora_compose.server.engine.frontend.early_process import IMPORTED, engine_context, in_environment
from lora_compose.server.engine.frontend.environment import engine_environment


def write_environment(path: str) -> None:
    import torch

    Path(path).write_text(json.dumps({"threads": torch.get_num_threads(), **os.environ}))


def test_an_engine_has_the_variables_of_the_moment_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BEFORE", "1")
    written = []
    for number, threads in enumerate(("1", "2")):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        monkeypatch.setenv("NUMBER", str(number))
        path = tmp_path / f"{number}.json"
        process = engine_context().Process(target=write_environment, args=(str(path),))
        process.start()
        process.join(60)
        assert process.exitcode == 0
        written.append(json.loads(path.read_text()))
        monkeypatch.delenv("BEFORE", raising=False)
    assert [one["NUMBER"] for one in written] == ["0", "1"]
    assert [one["threads"] for one in written] == [1, 2]
    assert ["BEFORE" in one for one in written] == [True, False]


def test_the_process_is_found_and_ended() -> None:
    process = engine_context().Process(target=os.getpid)
    process.start()
    process.join(60)
    assert early_process.is_running()
    early_process.end()
    psutil.wait_procs(psutil.Process().children(), timeout=1)
    assert not early_process.is_running()


def test_variables_are_given_only_meanwhile_and_the_user_s_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("VLLM_NO_USAGE_STATS", raising=False)
    with in_environment(engine_environment("org/model")):
        assert (os.environ["OMP_NUM_THREADS"], os.environ["VLLM_NO_USAGE_STATS"]) == ("7", "1")
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "VLLM_NO_USAGE_STATS" not in os.environ


def test_what_is_imported_early_exists() -> None:
    from importlib.util import find_spec

    assert all(find_spec(name) is not None for name in IMPORTED)
