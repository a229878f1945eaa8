import httpx
import pytest

from tests.server.test_refusals import assert_refused

TEXT = {"type": "output_text", "text": "answer", "annotations": []}


@pytest.mark.parametrize("content", [[], [{"type": "refusal", "refusal": "no"}]])
def test_an_earlier_answer_without_text_is_refused_and_not_a_bug(
    http: httpx.Client, content: list[dict[str, str]]
) -> None:
    answer = {"type": "message", "role": "assistant", "id": "m", "status": "completed", "content": content}
    reply = http.post("/v1/responses", json={"input": [answer], "max_output_tokens": 2})
    assert_refused(reply, 400, "invalid_request")
    assert reply.json()["error"]["param"] == "input[0].content"


def test_an_earlier_answer_with_text_goes_on_to_vllm(http: httpx.Client) -> None:
    answer = {"type": "message", "role": "assistant", "id": "m", "status": "completed", "content": [TEXT]}
    asked = {"role": "user", "content": "roll table"}
    reply = http.post("/v1/responses", json={"input": [answer, asked], "max_output_tokens": 2})
    assert reply.status_code == 200
