"""Lets vLLM's app answer a request that names no composition."""

from starlette.types import Receive, Scope, Send

from lora_compose.server.generation.vllm_errors import translate_errors


async def answer_by_vllm(scope: Scope, receive: Receive, send: Send) -> None:
    """Forward to the same path of vLLM's app. HEAD is forwarded as GET, which is all that vLLM knows."""
    engine = scope["state"]["engine"]
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    await engine.app({**scope, "method": method}, receive, translate_errors(send, engine.is_alive))
