"""A stand-in for vLLM's app whose answers have vLLM's shapes, recorded from vLLM 0.32, with a fixed text."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

TOKENS = ((97, "a"), (98, "b"), (108, "l"), (2, "</s>"))
"""(id, token) of the answer "abl". The last one ends it and is not a part of the text."""
PROMPT_IDS = [1, 87]
USAGE = {"prompt_tokens": len(PROMPT_IDS), "completion_tokens": len(TOKENS), "total_tokens": 6}
ERROR = {"error": {"message": "no memory", "type": "InternalServerError", "param": None, "code": 500}}


@dataclass
class VllmStandIn:
    """`asked` has the (path, body) of each request. A stream fails before event number `fails_at`."""

    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    aborted: int = 0
    fails_at: int | None = None
    endless: bool = False
    """Whether a stream repeats its first event until the client disconnects."""
    message: dict[str, Any] = field(default_factory=lambda: {"role": "assistant", "content": "abl"})
    deltas: list[dict[str, Any]] = field(
        default_factory=lambda: [{"role": "assistant", "content": ""}, {"content": "ab"}, {"content": "l"}]
    )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        assert request.headers["content-type"] == "application/json"  # as vLLM requires
        body = await request.json()
        self.asked.append((scope["path"], body))
        if scope["path"] == "/tokenize":
            await JSONResponse({"count": 1, "tokens": [1]})(scope, receive, send)
        elif self.endless:
            await self._endless(body, receive, send)
        elif body.get("stream"):
            events = _framed(self._events(scope["path"], body))
            await StreamingResponse(events, media_type="text/event-stream")(scope, receive, send)
        else:
            await JSONResponse(self._whole(scope["path"], body))(scope, receive, send)

    def _whole(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "stop_reason": None, "logprobs": None}
        choice |= _completion("abl", TOKENS, body) if path == "/v1/completions" else {"message": self.message}
        return {"model": body["model"], "choices": [choice], "usage": USAGE}

    def _events(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        made = self._completions(body) if path == "/v1/completions" else self._chats()
        for index, choice in enumerate(made):
            if index == self.fails_at:
                yield ERROR
                return
            yield {"model": body["model"], "choices": [choice]}
        if body.get("stream_options"):
            yield {"model": body["model"], "choices": [], "usage": USAGE}

    def _completions(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        # vLLM may send several tokens in one event.
        for text, tokens in (("a", TOKENS[:1]), ("bl", TOKENS[1:3]), ("", TOKENS[3:])):
            ends = "stop" if tokens[-1] is TOKENS[-1] else None
            yield {"index": 0, "finish_reason": ends, "stop_reason": None, **_completion(text, tokens, body)}

    def _chats(self) -> Iterator[dict[str, Any]]:
        for delta in self.deltas:
            yield {"index": 0, "delta": delta, "logprobs": None, "finish_reason": None}
        yield {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop", "stop_reason": None}

    async def _endless(self, body: dict[str, Any], receive: Receive, send: Send) -> None:
        choice = {"index": 0, "delta": {"content": "a"}, "finish_reason": None}
        choice |= {**_completion("a", TOKENS[:1], {"logprobs": 0}), "stop_reason": None}
        event = b"data: " + json.dumps({"model": body["model"], "choices": [choice]}).encode() + b"\n\n"
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        gone = asyncio.create_task(_disconnected(receive))
        try:
            while not gone.done():
                await send({"type": "http.response.body", "body": event, "more_body": True})
                await asyncio.sleep(0.01)
        finally:
            self.aborted += 1


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _completion(text: str, tokens: tuple[tuple[int, str], ...], body: dict[str, Any]) -> dict[str, Any]:
    shown = {"text": text, "logprobs": None, "token_ids": None, "prompt_token_ids": None}
    if body.get("logprobs") is None:
        return shown
    logprobs = {"tokens": [token for _, token in tokens], "token_logprobs": [-0.5] * len(tokens)}
    ids = [token_id for token_id, _ in tokens]
    chances = {"prompt_logprobs": [None, {"87": {"logprob": -5.8, "decoded_token": "r"}}]}
    return {
        **shown,
        "logprobs": logprobs,
        "token_ids": ids,
        "prompt_token_ids": PROMPT_IDS,
        **(chances if body.get("prompt_logprobs") == 0 else {}),
    }


def _framed(events: Iterator[dict[str, Any]]) -> Iterator[bytes]:
    for event in events:
        yield b"data: " + json.dumps(event).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"
