"""The two attributes of vLLM's responses that `Engine` reads are still there."""

import inspect

from vllm.entrypoints.openai.responses.serving import OpenAIServingResponses


def test_vllm_keeps_its_store_and_its_work_where_the_engine_looks() -> None:
    source = inspect.getsource(OpenAIServingResponses)
    assert "self.enable_store = envs.VLLM_ENABLE_RESPONSES_API_STORE" in source
    assert "self.background_tasks[response_id] = task" in source
    assert "self.background_tasks.pop(response_id, None)" in source


def test_the_id_of_a_response_is_the_id_of_the_request() -> None:
    source = inspect.getsource(OpenAIServingResponses)
    assert "response_id = request.request_id" in source
    assert "self.response_store[response.id] = response" in source
