"""Answers of vLLM in Ollama's shape: one JSON object, or one object a line in a stream."""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from typing_extensions import override

NDJSON = "application/x-ndjson"


def now() -> str:
    """The time in RFC 3339, as Ollama writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def line(value: object) -> bytes:
    """One line of a stream."""
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"


@dataclass
class LoadReply:
    """The reply to a request that only loads a model. `empty` is the part of the answer with the text."""

    model: str
    empty: dict[str, Any]
    media_type: str = NDJSON

    def whole(self, _: dict[str, Any]) -> object:
        return {"model": self.model, "created_at": now(), **self.empty, "done": True, "done_reason": "load"}

    def event(self, _: dict[str, Any]) -> Iterable[bytes]:
        return ()

    def end(self) -> Iterable[bytes]:
        return ()


@dataclass
class OllamaReply(ABC):
    """The common part of the replies of `/api/chat` and `/api/generate`."""

    media_type: str = NDJSON
    _started: float = field(default_factory=time.perf_counter)
    _first: float | None = None
    _model: str = ""
    _reason: str = "stop"
    _usage: dict[str, Any] = field(default_factory=dict)
    _calls: dict[int, dict[str, str]] = field(default_factory=dict)

    @abstractmethod
    def part(self, message: dict[str, Any]) -> dict[str, Any]:
        """The part of the answer with the text of an OpenAI message or delta."""

    def whole(self, answer: dict[str, Any]) -> object:
        """The complete answer."""
        choice = answer["choices"][0]
        self._model, self._usage = answer["model"], answer["usage"]
        self._reason = _done_reason(choice["finish_reason"])
        return self._head() | self._shown(choice, _message(choice)) | self._tail()

    def event(self, event: dict[str, Any]) -> Iterable[bytes]:
        """A line for each chunk that has text. Tool calls come as a whole, at the end."""
        self._model = event["model"]
        self._usage = event.get("usage") or self._usage
        for choice in event["choices"]:
            yield from self._choice(choice)

    def _choice(self, choice: dict[str, Any]) -> Iterator[bytes]:
        message = _message(choice)
        if choice["finish_reason"]:
            self._reason = _done_reason(choice["finish_reason"])
        for call in message.pop("tool_calls", None) or ():
            self._collect(call)
        if any(message.get(name) for name in ("content", "reasoning")):
            self._first = self._first or time.perf_counter()
            yield line(self._head() | self._shown(choice, message) | {"done": False})

    def _collect(self, call: dict[str, Any]) -> None:
        whole = self._calls.setdefault(call["index"], {"name": "", "arguments": ""})
        for name in whole:
            whole[name] += (call.get("function") or {}).get(name) or ""

    def end(self) -> Iterable[bytes]:
        """The tool calls, and the last line with the counts."""
        if self._calls:
            calls = [{"function": call} for _, call in sorted(self._calls.items())]
            message = {"role": "assistant", "content": "", "tool_calls": calls}
            yield line(self._head() | self.part(message) | {"done": False})
        yield line(self._head() | self.part({"content": ""}) | self._tail())

    def _head(self) -> dict[str, Any]:
        return {"model": self._model, "created_at": now()}

    def _shown(self, choice: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
        logprobs = (choice.get("logprobs") or {}).get("content")
        return self.part(message) | ({"logprobs": logprobs} if logprobs else {})

    def _tail(self) -> dict[str, Any]:
        """Durations are in nanoseconds. The time until the first text counts as that of the prompt."""
        ended, first = time.perf_counter(), self._first or self._started
        return {
            "done": True,
            "done_reason": self._reason,
            "total_duration": _nanoseconds(ended - self._started),
            "load_duration": 0,
            "prompt_eval_count": self._usage.get("prompt_tokens", 0),
            "prompt_eval_duration": _nanoseconds(first - self._started),
            "eval_count": self._usage.get("completion_tokens", 0),
            "eval_duration": _nanoseconds(ended - first),
        }


class ChatReply(OllamaReply):
    """The reply of `/api/chat`."""

    @override
    def part(self, message: dict[str, Any]) -> dict[str, Any]:
        shown: dict[str, Any] = {"role": "assistant", "content": message.get("content") or ""}
        if message.get("reasoning"):
            shown["thinking"] = message["reasoning"]
        if message.get("tool_calls"):
            shown["tool_calls"] = [_tool_call(call["function"]) for call in message["tool_calls"]]
        return {"message": shown}


class GenerateReply(OllamaReply):
    """The reply of `/api/generate`."""

    @override
    def part(self, message: dict[str, Any]) -> dict[str, Any]:
        thinking = {"thinking": message["reasoning"]} if message.get("reasoning") else {}
        return {"response": message.get("content") or "", **thinking}


def _message(choice: dict[str, Any]) -> dict[str, Any]:
    """The message or delta of a chat, or the text of a completion in its place."""
    return dict(choice.get("message") or choice.get("delta") or {"content": choice.get("text")})


def _tool_call(function: dict[str, str]) -> dict[str, Any]:
    """Ollama's call, whose arguments are an object. A model may write arguments that are not JSON."""
    try:
        arguments = json.loads(function["arguments"] or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        arguments = {"arguments": function["arguments"]}
    return {"function": {"name": function["name"], "arguments": arguments}}


def _done_reason(finish_reason: str) -> str:
    return "length" if finish_reason == "length" else "stop"


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
