"""Every refusal has a status by its class, also a class that the table does not list."""

import json
from collections.abc import Iterator

import pytest
from starlette.requests import Request

from lora_compose.adapters.errors import Code, LoraComposeError, NotFound, QuotaExceeded, ServerCode
from lora_compose.server.errors import STATUS, refusal, status_of
from lora_compose.training.data.errors import DataRejected

REQUEST = Request({"type": "http"})


class NothingOfThatName(NotFound):
    """A subclass that the table does not list."""


def tree(error: type[LoraComposeError]) -> Iterator[type[LoraComposeError]]:
    """The class and all classes derived from it."""
    yield error
    for child in error.__subclasses__():
        yield from tree(child)


@pytest.mark.parametrize("error", list(tree(LoraComposeError)))
def test_every_class_of_refusal_is_answered_with_its_code_and_message(error: type[LoraComposeError]) -> None:
    reply = refusal(REQUEST, error(ServerCode("some_code"), "Some message.", "model"))
    told = json.loads(bytes(reply.body))["error"]
    assert (told["code"], told["message"], told["param"]) == ("some_code", "Some message.", "model")
    assert reply.status_code == status_of(error) >= 400
    assert ("retry-after" in reply.headers) != ("x-should-retry" in reply.headers)


def test_every_class_that_a_request_can_cause_is_in_the_table() -> None:
    directly = set(LoraComposeError.__subclasses__())
    assert directly - STATUS.keys() == {DataRejected}


def test_a_class_that_is_not_listed_has_its_parents_status() -> None:
    assert status_of(NothingOfThatName) == 404
    assert status_of(LoraComposeError) == 500


@pytest.mark.parametrize(("seconds", "header"), [(None, None), (0.2, "1"), (17.0, "17")])
def test_a_quota_says_when_to_come_back_unless_waiting_does_not_help(
    seconds: float | None, header: str | None
) -> None:
    reply = refusal(REQUEST, QuotaExceeded(Code.QUOTA_EXCEEDED, "Used up.", None, seconds))
    assert (reply.status_code, reply.headers.get("retry-after")) == (429, header)
