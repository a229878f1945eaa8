"""Asks a running server chat questions with the `openai` client. No other module does this.

`answer` returns a text. `stream` also returns times, usage and the name of the model that answered. A refusal
is raised as LoraComposeError with the server's own code and message. If no server answers, the code is
`server_unreachable`. The `openai` package is imported when a client is made, so that `--help` stays fast.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from lora_compose.adapters.command_line import server_root
from lora_compose.adapters.errors import LoraComposeError, ServerCode
from lora_compose.server.client.http import foreign_reply, names_in, unreachable, with_suggestion

if TYPE_CHECKING:
    from openai import APIError
    from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

Message = Mapping[str, Any]
"""`role` and `content`."""


@dataclass(frozen=True)
class ChatQuestion:
    """A question. Without a `model` the server's base answers."""

    prompt: str
    model: str | None = None
    """A composition as text: "sql:0.7+polite", "ties(sql+polite,density=0.3)"."""
    system: str | None = None
    max_tokens: int = 256
    temperature: float = 0.0
    fields: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request's body, such as `adapters`."""

    @property
    def messages(self) -> list[Message]:
        """The conversation to send."""
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, {"role": "user", "content": self.prompt}]


@dataclass(frozen=True)
class ChatAnswer:
    """A streamed answer. Times are in seconds from sending the request, by the client's clock."""

    text: str
    model: str
    """The canonical name of the model that answered."""
    finish_reason: str | None
    usage: dict[str, Any] | None
    time_to_first_token: float | None
    """None if the answer has no text."""
    total_seconds: float

    @property
    def tokens_per_second(self) -> float | None:
        """Over the whole answer, including the wait for the first token. None without `usage`."""
        return None if self.usage is None else float(self.usage["completion_tokens"] / self.total_seconds)

    def to_dict(self) -> dict[str, Any]:
        """The fields, for JSON."""
        return asdict(self)


class ChatClient:
    """One server's chat completions. Threads may share it.

    By default a failed request is not repeated, so that the user sees the failure at once."""

    def __init__(self, url: str, api_key: str | None = None, max_retries: int = 0) -> None:
        from openai import OpenAI

        self._url = server_root(url)
        self._openai = OpenAI(base_url=f"{self._url}/v1", api_key=api_key or "none", max_retries=max_retries)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._openai.close()

    def base_model(self) -> str:
        """The name that requests use for the base."""
        with self._refusals():
            page = self._openai.get("/models", cast_to=object)
        match page:
            case {"data": [{"id": str(name)}, *_]}:
                return name
        raise foreign_reply(self._url)

    def answer(self, model: str, messages: Sequence[Message], max_tokens: int) -> str:
        """The greedy answer of `model`, a composition as text, to a conversation."""
        with self._refusals():
            reply = self._openai.chat.completions.create(
                model=model,
                messages=_typed(messages),
                max_completion_tokens=max_tokens,
                temperature=0,
            )
        choices = getattr(reply, "choices", None)  # the openai client does not validate replies
        if not choices:
            raise foreign_reply(self._url)
        return choices[0].message.content or ""

    def stream(self, question: ChatQuestion, on_text: Callable[[str], None] = lambda _: None) -> ChatAnswer:
        """The timed answer to `question`; `on_text` gets each piece of it as it arrives."""
        requested = question.model or self.base_model()
        pieces: list[str] = []
        model, first, reason, usage = None, None, None, None
        started = perf_counter()
        for chunk in self._chunks(question, requested):
            model, usage = chunk.model, chunk.usage or usage
            reason = next((choice.finish_reason for choice in chunk.choices), None) or reason
            if piece := "".join(choice.delta.content or "" for choice in chunk.choices):
                first = first or perf_counter() - started
                pieces.append(piece)
                on_text(piece)
        total = perf_counter() - started
        if model is None:
            raise foreign_reply(self._url)
        counts = None if usage is None else usage.model_dump(exclude_none=True)
        return ChatAnswer("".join(pieces), model, reason, counts, first, total)

    def _chunks(self, question: ChatQuestion, model: str) -> "Iterator[ChatCompletionChunk]":
        with self._refusals():
            yield from self._openai.chat.completions.create(
                model=model,
                messages=_typed(question.messages),
                max_completion_tokens=question.max_tokens,
                temperature=question.temperature,
                stream=True,
                stream_options={"include_usage": True},
                extra_body=dict(question.fields),
            )

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        """Raises LoraComposeError for the openai client's exceptions."""
        from openai import APIConnectionError, APIError

        try:
            yield
        except APIConnectionError as error:
            raise unreachable(self._url, str(error.__cause__ or error)) from error
        except APIError as error:
            raise with_suggestion(_refusal(error), self._names) from error

    def _names(self) -> set[str]:
        return names_in(self._openai.get("/adapters", cast_to=object))


def _refusal(error: "APIError") -> LoraComposeError:
    """The server's error object, or the status if the body has none."""
    message = error.body.get("message") if isinstance(error.body, dict) else None
    status = getattr(error, "status_code", None)
    code = error.code or ("error" if status is None else f"http_{status}")
    return LoraComposeError(ServerCode(code), message or error.message, error.param)


def _typed(messages: Sequence[Message]) -> "list[ChatCompletionMessageParam]":
    """The messages, as the openai client's types require. The server checks them."""
    return list(messages)  # type: ignore[arg-type]
