"""The timings of the kernels: a small real run, and the figures."""

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lora_compose.benchmarks.studies.kernels import heat_map, kernels, markdown_table, timings


def document(ours: float, vllm: float) -> dict[str, object]:
    case = {"tokens": 8, "rank": 4, "adapters": 2}
    rows = [
        {"way": "gemm", "seconds": [0.5]},
        {"way": "stream", "seconds": [1.0]},
        {"way": "ours", "seconds": [ours] * 5, **case},
        {"way": "vllm", "seconds": [vllm] * 5, **case},
    ]
    result = {"threads": 1, "gemm_flops": 1e9, "stream_bytes": 1e9, "rows": rows}
    config = {"hidden": 64, "out": 32, "repeats": 5, "seed": 0}
    return {"machine": {"cpu": "a CPU"}, "config": config, "result": result}


def test_a_cell_at_the_machine_s_limit_has_a_share_of_one() -> None:
    moved = 4 * (2 * 4 * 96 + 8 * (64 + 2 * 32))  # seven kilobytes for six thousand operations: memory binds
    roof, (one,) = timings(document(moved / 1e9, 2 * moved / 1e9))
    assert (roof.flops, roof.bytes) == (2e9, 1e9)
    assert one.flops == 2 * 8 * 4 * 96
    assert one.of_roofline == pytest.approx(1)
    assert one.speedup == pytest.approx(2)


def test_the_table_and_the_picture_are_made_from_json_only(tmp_path: Path) -> None:
    saved = json.loads(json.dumps(document(1e-6, 2e-6)))
    heat_map(saved, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert "| 8 | 4 | 2 | 1 | 1 to 1 |" in markdown_table(saved)


def test_the_published_table_is_what_the_result_beside_it_says() -> None:
    root = Path(__file__).resolve().parents[3]
    saved = json.loads((root / "benchmarks" / "results" / "kernel-benchmarks.json").read_text())
    assert markdown_table(saved) in (root / "docs" / "kernel-benchmarks.md").read_text()


def test_a_small_run_times_every_cell_there_can_be() -> None:
    app = typer.Typer()
    app.command()(kernels)
    small = ["--tokens", "1,2", "--ranks", "4", "--adapters", "1,2", "--hidden", "32", "--out", "16"]
    ended = CliRunner().invoke(app, [*small, "--repeats", "5", "--json"], catch_exceptions=False)
    rows = json.loads(ended.stdout)["result"]["rows"]
    ours = [(r["tokens"], r["adapters"]) for r in rows if r["way"] == "ours"]
    assert ours == [(1, 1), (2, 1), (2, 2)]
    assert all(len(row["seconds"]) == 5 and min(row["seconds"]) > 0 for row in rows)
