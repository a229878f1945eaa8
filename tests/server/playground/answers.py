"""A stand-in for vLLM's app that streams. Its answer is the canonical name that it was asked for, so a page
shows which composition it belongs to. Every character is a token, and its id is its code point."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

LIKELY = math.log(0.9)
UNDER_THE_BASE = math.log(0.01)
OTHERS = "vwxyz"
SLOW = "slowly"
"""The prompt whose answer takes half a second for each token."""


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """vLLM's routes that the page uses."""
    request = Request(scope, receive)
    body = await request.json()
    path = request.url.path
    reply: Any
    if path == "/v1/chat/completions" and body.get("stream"):
        reply = StreamingResponse(_stream(body), media_type="text/event-stream")
    elif path == "/v1/chat/completions":
        text = body["model"]
        choice = {"message": {"content": text}, "logprobs": {"content": [_token(one) for one in text]}}
        reply = JSONResponse({"model": body["model"], "choices": [choice]})
    elif path == "/v1/completions" and body.get("stream"):
        reply = StreamingResponse(_continued(body), media_type="text/event-stream")
    elif path == "/v1/completions":
        reply = JSONResponse(_scored(body))
    else:
        reply = JSONResponse({"tokens": [ord(one) for one in body.get("prompt", "prompt")]})
    await reply(scope, receive, send)


async def _stream(body: dict[str, Any]) -> AsyncIterator[str]:
    for index, one in enumerate(body["model"]):
        if body["messages"][-1]["content"] == SLOW and index:
            await asyncio.sleep(0.5)
        choice = {
            "delta": {"content": one},
            "logprobs": {"content": [_token(one)]},
            "token_ids": [ord(one)],
            "finish_reason": None,
        }
        event = {"model": body["model"], "choices": [choice]}
        if index == 0:
            event["prompt_token_ids"] = [1, 2]
        yield f"data: {json.dumps(event)}\n\n"
    yield "data: [DONE]\n\n"


async def _continued(body: dict[str, Any]) -> AsyncIterator[str]:
    text = f"{body['prompt']} {body['model']}"
    top = [{one: LIKELY, **dict.fromkeys(OTHERS, LIKELY - 1)} for one in text]
    logprobs = {"tokens": [*text], "token_logprobs": [LIKELY] * len(text), "top_logprobs": top}
    ids = {"prompt_token_ids": [1, 2], "token_ids": [ord(one) for one in text]}
    choice = {"text": text, "logprobs": logprobs, "finish_reason": "stop", **ids}
    yield f"data: {json.dumps({'model': body['model'], 'choices': [choice]})}\n\n"
    yield "data: [DONE]\n\n"


def _token(text: str) -> dict[str, Any]:
    top = [{"token": one, "logprob": LIKELY - index} for index, one in enumerate(text + OTHERS[1:])]
    return {"token": text, "logprob": LIKELY, "top_logprobs": top}


def _scored(body: dict[str, Any]) -> dict[str, Any]:
    entries: list[Any] = [None]
    for token in body["prompt"][1:]:
        mine = {"logprob": UNDER_THE_BASE, "rank": 6, "decoded_token": chr(token)}
        others = {
            str(ord(one)): {"logprob": LIKELY - rank, "rank": rank, "decoded_token": one}
            for rank, one in enumerate(OTHERS, 1)
        }
        entries.append({**others, str(token): mine})
    top = {one: LIKELY - rank for rank, one in enumerate(OTHERS)}
    choice = {"text": "v", "prompt_logprobs": entries, "logprobs": {"top_logprobs": [top]}}
    return {"model": body["model"], "choices": [choice]}
