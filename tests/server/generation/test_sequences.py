"""A request counts as the number of answers that it needs."""

from typing import Any

import pytest

from lora_compose.adapters.errors import QuotaExceeded
from lora_compose.server.generation.request_checks import sequences
from lora_compose.server.tenants.key import Quotas
from lora_compose.server.tenants.quotas import Account

ASKED: list[tuple[dict[str, Any], int]] = [
    ({}, 1),
    ({"prompt": "a"}, 1),
    ({"prompt": [1, 2, 3]}, 1),
    ({"prompt": []}, 1),
    ({"prompt": ["a", "b"]}, 2),
    ({"prompt": [[1], [2], [3]], "n": 4}, 12),
    ({"n": "5"}, 5),
    ({"best_of": 6.0, "n": 2}, 6),
    ({"n": "many"}, 1),
    ({"n": -3}, 1),
    ({"n": float("inf")}, 1),
]


@pytest.mark.parametrize(("body", "count"), ASKED)
def test_each_answer_counts(body: dict[str, Any], count: int) -> None:
    assert sequences(body, "/v1/completions") == count


def test_a_request_for_several_answers_takes_as_many_places_and_gives_them_back() -> None:
    account = Account(Quotas(in_flight=4))
    with account.answering(), account.sequences(3):
        with account.answering(), pytest.raises(QuotaExceeded) as told, account.sequences(2):
            pass
        assert told.value.retry_after is not None
    with account.answering(), pytest.raises(QuotaExceeded) as told, account.sequences(5):
        pass
    assert (told.value.retry_after, account.in_flight) == (None, 0)
