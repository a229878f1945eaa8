"""Which rows of the embedding and the head belong to which request."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from lora_compose.server.engine.worker import runner_methods
from lora_compose.server.engine.worker.member_manager import RowCounts
from lora_compose.server.engine.worker.runner_methods import prompt_logprobs, set_active_loras


class Manager:
    """Remembers what it is given."""

    def __init__(self) -> None:
        self.selected: tuple[Any, RowCounts] | None = None
        self.rows: tuple[Any, int] | None = None

    def select(self, lora_requests: Any, counts: RowCounts) -> None:
        self.selected = lora_requests, counts

    @contextmanager
    def prompt_rows(self, lora_request: Any, count: int) -> Iterator[None]:
        self.rows = lora_request, count
        yield
        self.rows = None


def runner(**fields: Any) -> SimpleNamespace:
    requests = {
        name: SimpleNamespace(
            lora_request=f"lora of {name}", prompt_token_ids=[1] * 10, num_computed_tokens=0
        )
        for name in "abc"
    }
    known = {"requests": requests, "lora_manager": Manager(), "lora_config": True, "num_prompt_logprobs": {}}
    return SimpleNamespace(**{"enable_prompt_embeds": False, "supports_mm_inputs": False} | known | fields)


def selected(made: SimpleNamespace, scheduled: list[int], sampled: list[int] | None = None) -> RowCounts:
    batch = SimpleNamespace(req_ids=list("abc"))
    set_active_loras(made, batch, np.array(scheduled), None if sampled is None else np.array(sampled))
    found: Any = made.lora_manager.selected
    assert found[0] == ["lora of a", "lora of b", "lora of c"]
    return found[1]  # type: ignore[no-any-return]


def test_the_head_has_one_row_for_each_sampled_token() -> None:
    assert selected(runner(), [7, 1, 4], [1, 1, 4]) == RowCounts((7, 1, 4), (7, 1, 4), (1, 1, 4))
    assert selected(runner(), [7, 1, 4]).sampled == (1, 1, 1)


def test_the_embedding_has_no_row_for_a_token_whose_embedding_the_prompt_gives() -> None:
    flags = np.array([True, True, False, False, True, False, True, True, True])
    made = runner(enable_prompt_embeds=True, is_token_ids=SimpleNamespace(np=flags))
    assert selected(made, [3, 1, 4]).ids == (2, 0, 3)
    made.supports_mm_inputs = True  # then the model embeds every row
    assert selected(made, [3, 1, 4]).ids == (3, 1, 4)


def test_prompt_logprobs_are_computed_for_one_request_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made, seen = runner(num_prompt_logprobs={"a": 2, "b": 5, "c": 1}), []

    def upstream(self: Any, hidden_states: Any, scheduled: dict[str, int]) -> dict[str, str]:
        ((name, number),) = self.num_prompt_logprobs.items()
        seen.append((name, number, self.lora_manager.rows))
        if name == "b":  # its prompt is not complete yet
            return {}
        self.num_prompt_logprobs.pop(name)
        return {name: "logprobs"}

    monkeypatch.setattr(runner_methods, "_prompt_logprobs", upstream)
    made.requests["b"].num_computed_tokens = 3
    assert prompt_logprobs(made, None, {"a": 10, "b": 4}) == {"a": "logprobs", "c": "logprobs"}
    assert seen == [
        ("a", 2, ("lora of a", 9)),  # the last token of a prompt has no successor in it
        ("b", 5, ("lora of b", 4)),
        ("c", 1, ("lora of c", 0)),
    ]
    assert made.num_prompt_logprobs == {"b": 5}


def test_without_lora_upstream_s_method_is_called_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    made = runner(lora_config=None, num_prompt_logprobs={"a": 1, "b": 1})
    monkeypatch.setattr(runner_methods, "_prompt_logprobs", lambda *_: {"all": "at once"})
    assert prompt_logprobs(made, None, {"a": 1}) == {"all": "at once"}
