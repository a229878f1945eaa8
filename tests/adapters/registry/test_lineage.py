"""The lineage that a client gives: any small JSON object, and nothing else."""

import json
from typing import Any

import pytest

from lora_compose.adapters.errors import InvalidRequest
from lora_compose.adapters.registry.lineage import MAX_LINEAGE_BYTES, check_lineage

TOLD = {"method": "sft", "scores": {"domain": 0.97}, "data": [{"source": "roll.jsonl"}]}


@pytest.mark.parametrize("given", [TOLD, json.dumps(TOLD)], ids=["object", "text"])
def test_an_object_is_kept_as_it_is(given: object) -> None:
    assert check_lineage(given) == TOLD


DEEP: Any = {}
for _ in range(20):
    DEEP = {"in": DEEP}


@pytest.mark.parametrize(
    "given",
    [
        None,
        [],
        3,
        "",
        "[]",
        "{",
        '{"a": NaN}',
        {"a": float("nan")},
        {"a": "x" * MAX_LINEAGE_BYTES},
        DEEP,
        "\ud800",
    ],
    ids=lambda given: repr(given)[:20],
)
def test_anything_else_is_refused(given: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_lineage(given)
    assert refused.value.code == "invalid_lineage"
