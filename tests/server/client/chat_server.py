"""A server that repeats the user's words in OpenAI's stream format, and refuses some questions."""

import json
from collections.abc import Iterator
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

USAGE = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
REFUSAL = {"message": "There is no adapter 'nope'.", "type": "x", "param": "model", "code": "model_not_found"}


def stream(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Streams the user's words back in OpenAI's format, one word a chunk."""
    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": body["model"]}
    for word in body["messages"][-1]["content"].split():
        yield {**chunk, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
    if body["messages"][-1]["content"].endswith("break"):
        yield {"error": {"message": "The engine died.", "type": "server_error", "code": "engine_dead"}}
    yield {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    yield {**chunk, "choices": [], "usage": USAGE}


async def chat(request: Request) -> Response:
    body = await request.json()
    if body["model"] == "nope":
        return JSONResponse({"error": REFUSAL}, 404)
    if body["model"] == "gateway":
        return PlainTextResponse("Bad gateway", 502)
    if not body.get("stream"):
        return JSONResponse({"choices": [{"message": {"content": json.dumps(body)}}]})
    lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in stream(body)]
    return Response("".join([*lines, "data: [DONE]\n\n"]), media_type="text/event-stream")


def models(_: Request) -> Response:
    return JSONResponse({"object": "list", "data": [{"id": "base", "object": "model"}, {"id": "sql"}]})


CHAT_APP = Starlette(
    routes=[Route("/v1/chat/completions", chat, methods=["POST"]), Route("/v1/models", models)]
)
