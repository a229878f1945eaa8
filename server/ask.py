"""Ask a server one question with the `openai` client, streaming, and time the answer."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from adapters.client import unreachable
from adapters.composition import Composition
from adapters.composition_grammar import parse
from adapters.composition_options import check_method, read_options
from adapters.errors import InvalidRequest, LoraComposeError

if TYPE_CHECKING:
    from openai import OpenAI
    from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam


@dataclass(frozen=True)
class Question:
    """What to ask. Without a `model` the server's base answers."""

    prompt: str
    model: str | None = None
    """A composition as text: "sql:0.7+polite", "ties(sql+polite,density=0.3)"."""
    system: str | None = None
    max_tokens: int = 256
    temperature: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What came back. Times are in seconds, by the client's clock, from sending the request."""

    text: str
    model: str
    """The canonical name of what answered."""
    finish_reason: str | None
    usage: dict[str, Any] | None
    time_to_first_token: float | None
    """None where no text came at all."""
    total_seconds: float

    @property
    def tokens_per_second(self) -> float | None:
        """Over the whole answer, the wait for the first token included; None where nothing was counted."""
        return None if self.usage is None else float(self.usage["completion_tokens"] / self.total_seconds)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


def composition_text(
    adapters: str, method: str | None, rank: int | None = None, density: float | None = None
) -> str:
    """`adapters` with `method` and its options put round it; as it is where there are none.

    Raises InvalidRequest where they do not go together."""
    options = {"rank": rank, "density": density}
    if method is None:
        if any(value is not None for value in options.values()):
            raise InvalidRequest("missing_method", "a rank or a density needs a method", "method")
        return adapters
    members = parse(adapters, "adapters")
    if not members.is_stack:
        raise InvalidRequest("invalid_composition", f"{adapters} names a method already", "method")
    method = check_method(method, "method")
    return Composition(members.members, method, read_options(method, options, prefix="")).canonical


def ask(client: "OpenAI", question: Question, on_text: Callable[[str], None] = lambda _: None) -> Answer:
    """The answer to `question`; `on_text` gets each piece as it comes.

    Raises LoraComposeError with the server's code and message, or `server_unreachable`."""
    pieces: list[str] = []
    first, model, reason, usage = None, "", None, None
    with refusals(str(client.base_url)):
        asked = question.model or client.models.list().data[0].id
        started = perf_counter()
        for chunk in _chunks(client, question, asked):
            model, usage = chunk.model, chunk.usage or usage
            reason = next((choice.finish_reason for choice in chunk.choices), None) or reason
            if piece := "".join(choice.delta.content or "" for choice in chunk.choices):
                first = first or perf_counter() - started
                pieces.append(piece)
                on_text(piece)
    counts = None if usage is None else usage.model_dump(exclude_none=True)
    return Answer("".join(pieces), model, reason, counts, first, perf_counter() - started)


def _chunks(client: "OpenAI", question: Question, model: str) -> "Iterable[ChatCompletionChunk]":
    messages: list[ChatCompletionMessageParam] = [{"role": "user", "content": question.prompt}]
    if question.system is not None:
        messages.insert(0, {"role": "system", "content": question.system})
    return client.chat.completions.create(
        model=model,
        messages=messages,
        max_completion_tokens=question.max_tokens,
        temperature=question.temperature,
        stream=True,
        stream_options={"include_usage": True},
    )


def open_client(url: str, api_key: str | None) -> "OpenAI":
    """The `openai` client for a server of ours. It does not try again: people see at once what is wrong."""
    from openai import OpenAI

    return OpenAI(base_url=f"{url.rstrip('/')}/v1", api_key=api_key or "none", max_retries=0)


@contextmanager
def refusals(url: str) -> Iterator[None]:
    """The openai client's exceptions as ours."""
    from openai import APIConnectionError, APIError

    try:
        yield
    except APIConnectionError as error:
        raise unreachable(url.removesuffix("/").removesuffix("/v1"), str(error.__cause__ or error)) from error
    except APIError as error:
        said = error.body.get("message") if isinstance(error.body, dict) else None
        raise LoraComposeError(error.code or "error", said or error.message, error.param) from error
