"""`/v1/responses/{id}`: the responses that vLLM has stored. vLLM answers, if the key made the response."""

from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from lora_compose.adapters.errors import Code, NotFound
from lora_compose.server.api.forwarding import answer_by_vllm
from lora_compose.server.generation.offered import require_offered
from lora_compose.server.generation.stored_responses import require_owner
from lora_compose.server.paths import RESPONSES


class StoredResponse:
    """Pure ASGI, because `?stream=true` follows a response that is still being generated."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        engine = state["engine"]
        require_offered(RESPONSES, engine.paths)
        if not engine.stores_responses:
            raise NotFound(
                Code.RESPONSE_NOT_FOUND,
                "This server stores no responses. Start it with VLLM_ENABLE_RESPONSES_API_STORE=1.",
                "response_id",
            )
        require_owner(scope["path_params"]["id"], state["caller"].key.id)
        await answer_by_vllm(scope, receive, send)


ROUTES = [
    Route(f"{RESPONSES}/{{id}}", StoredResponse(), methods=["GET"]),
    Route(f"{RESPONSES}/{{id}}/cancel", StoredResponse(), methods=["POST"]),
]
