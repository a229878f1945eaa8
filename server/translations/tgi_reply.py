"""Answers of `/v1/completions` in the shape of TGI and LoRAX: one event for each token in a stream."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

LENGTH, EOS, STOP_SEQUENCE = "length", "eos_token", "stop_sequence"
ABORTED = {"error": "The generation was aborted.", "error_type": "incomplete_generation"}


@dataclass
class TgiReply:
    """The reply to one request."""

    special: frozenset[int]
    prompt: str
    """The text before the generated text: the prompt if the client wants the full text."""
    seed: int | None
    shows_details: bool
    in_list: bool
    """Whether the answer is the only item of a list, as on `POST /`."""
    media_type: str = "text/event-stream"
    _prompt_tokens: int = 0
    _count: int = 0
    _text: list[str] = field(default_factory=list)

    def whole(self, answer: dict[str, Any]) -> object:
        """`{"generated_text", "details"}`."""
        choice = answer["choices"][0]
        reply: dict[str, Any] = {"generated_text": self.prompt + choice["text"]}
        if self.shows_details:
            reply["details"] = self._details(choice, answer["usage"]["prompt_tokens"])
        return [reply] if self.in_list else reply

    def _details(self, choice: dict[str, Any], prompt_tokens: int) -> dict[str, Any]:
        return {
            "finish_reason": finish_reason(choice),
            "prompt_tokens": prompt_tokens,
            "generated_tokens": len(choice["token_ids"]),
            "seed": self.seed,
            "prefill": _prefill(choice),
            "tokens": list(_tokens(choice, choice["logprobs"]["tokens"], self.special)),
        }

    def event(self, event: dict[str, Any]) -> Iterable[bytes]:
        """One event for each token. The text of a chunk belongs to the last of its tokens.

        Special tokens have no text here, so that the texts of all events are the generated text."""
        for choice in event["choices"]:
            yield from self._choice(choice)

    def _choice(self, choice: dict[str, Any]) -> Iterator[bytes]:
        reason, ids = choice["finish_reason"], choice["token_ids"] or []
        if reason not in (None, "stop", "length"):
            yield sse(ABORTED)
            return
        self._prompt_tokens = self._prompt_tokens or len(choice.get("prompt_token_ids") or ())
        self._text.append(choice["text"])
        texts = [*[""] * (len(ids) - 1), choice["text"]] if ids else []
        tokens = list(_tokens(choice, texts, self.special))
        if not tokens and (choice["text"] or reason):
            # The text that was held back until the end belongs to no new token.
            tokens = [{"id": 0, "text": choice["text"], "logprob": 0.0, "special": not choice["text"]}]
        for index, token in enumerate(tokens, self._count + 1):
            event = {"index": index, "token": token, "generated_text": None, "details": None}
            if reason and token is tokens[-1]:
                event |= self._end(choice, self._count + len(ids))
            yield sse(event)
        self._count += len(ids)

    def _end(self, choice: dict[str, Any], count: int) -> dict[str, Any]:
        details = {
            "finish_reason": finish_reason(choice),
            "prompt_tokens": self._prompt_tokens,
            "input_length": self._prompt_tokens,
            "generated_tokens": count,
            "seed": self.seed,
        }
        return {"generated_text": self.prompt + "".join(self._text), "details": details}

    def end(self) -> Iterable[bytes]:
        """Nothing: the last token says that it is the last."""
        return ()


def finish_reason(choice: dict[str, Any]) -> str:
    """TGI's reason. vLLM's `stop_reason` is the stop sequence, or null or a token if the answer ended."""
    if choice["finish_reason"] != "stop":
        return LENGTH
    return STOP_SEQUENCE if isinstance(choice["stop_reason"], str) else EOS


def _tokens(choice: dict[str, Any], texts: list[str], special: frozenset[int]) -> Iterator[dict[str, Any]]:
    ids, logprobs = choice["token_ids"] or (), (choice["logprobs"] or {}).get("token_logprobs", ())
    for token_id, text, logprob in zip(ids, texts, logprobs, strict=True):
        yield {"id": token_id, "text": text, "logprob": logprob or 0.0, "special": token_id in special}


def _prefill(choice: dict[str, Any]) -> list[dict[str, Any]]:
    """The tokens of the prompt with their log probabilities, if the request asked for them."""
    ids, found = choice["prompt_token_ids"] or (), choice.get("prompt_logprobs")
    if found is None:
        return []
    rows = [
        (token_id, (chances or {}).get(str(token_id), {}))
        for token_id, chances in zip(ids, found, strict=True)
    ]
    return [
        {"id": token_id, "text": row.get("decoded_token") or "", "logprob": row.get("logprob")}
        for token_id, row in rows
    ]


def sse(value: object) -> bytes:
    """One server-sent event."""
    return f"data:{json.dumps(value, ensure_ascii=False)}\n\n".encode()
