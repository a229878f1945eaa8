"""The file of a result: it is read as it was written, and other files are refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_compose.adapters.errors import InvalidRequest
from lora_compose.benchmarks.machine import REPOSITORY
from lora_compose.benchmarks.serving.results.document import RequestRow, read_result
from lora_compose.benchmarks.serving.results.plan import Cell
from tests.benchmarks.serving.made_results import CELL, result

PUBLISHED = REPOSITORY / "benchmarks" / "results"


def written(content: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "bench.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("name", ["embedded", "311M"])
def test_a_published_result_is_the_same_when_it_is_written_again(name: str) -> None:
    content = json.loads((PUBLISHED / f"{name}.json").read_text())
    assert json.dumps(read_result(PUBLISHED / f"{name}.json").to_json()) == json.dumps(content)


def test_a_cell_is_a_name_in_the_file_and_a_load_in_the_result(tmp_path: Path) -> None:
    document = result({"base": 0.1})
    content = document.to_json()
    assert {one["cell"] for one in content["passes"]} == {CELL.id}
    assert read_result(written(content, tmp_path)) == document


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"schema": "lora-compose-bench/99"}, "schema"),
        ({"unknown": 1}, "unknown"),
        ({"passes": [{"cell": "closed loop, 77 in flight"}]}, "77 in flight"),
        ({"passes": [{"cell": CELL.id}]}, "passes.0.arm"),
        ({"passes": "many"}, "passes"),
        ({"plan": {"repeats": 0}}, "--repeats"),
    ],
)
def test_a_file_that_is_not_a_result_is_refused_with_the_place(
    change: dict[str, Any], named: str, tmp_path: Path
) -> None:
    content = result({"base": 0.1}).to_json() | change
    with pytest.raises(InvalidRequest, match=named):
        read_result(written(content, tmp_path))


def test_the_heat_map_is_a_cell_of_its_own_at_a_load_of_the_plan() -> None:
    plan = result({"base": 0.1}).plan
    assert plan.cell("heat map") == Cell("closed", concurrency=8, is_heat_map=True)
    assert plan.cell("heat map").load == CELL.id


def test_a_row_keeps_its_tokens_only_where_they_are_wrong() -> None:
    row = RequestRow(i=0, composition=0, prompt=0, due=0.0, sent=0.1234567, ids=[1], times=[0.1234567])
    right = row.for_file().model_dump()
    assert "ids" not in right
    assert (right["sent"], right["times"]) == (0.12346, [0.12346])
    assert row.model_copy(update={"failure": "wrong_answer"}).for_file().model_dump()["ids"] == [1]
