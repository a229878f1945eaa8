"""`lora-compose ask`: asks a running server one question, and prints the answer as it arrives."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

import typer

from lora_compose.adapters.command_line import DEFAULT_URL, ApiKey, AsJson, Url, echo_json
from lora_compose.adapters.composition.composition import Composition, check_method, read_options
from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import Code, CommandCode, InvalidRequest, LoraComposeError
from lora_compose.server.client.chat import ChatAnswer, ChatClient, ChatQuestion
from lora_compose.server.client.compositions_command import show_warnings
from lora_compose.server.client.http import Client, Json


def ask(
    prompt: Annotated[str, typer.Argument(help="The question, or `-` to read it from stdin.")],
    adapters: Annotated[
        str | None,
        typer.Option(
            help="The composition that answers. Without it the base answers.", metavar="COMPOSITION"
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="Merge the adapters with linear, svd, ties, dare_linear, dare_ties or magnitude_prune."
        ),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="The rank of the merge.")] = None,
    density: Annotated[
        float | None, typer.Option(help="The share of each delta's entries that a sparse method keeps.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="A system message to send before the question.")] = None,
    max_tokens: Annotated[int, typer.Option(help="The longest answer, in tokens.")] = ChatQuestion.max_tokens,
    temperature: Annotated[
        float, typer.Option(help="The sampling temperature. 0 gives the same answer every time.")
    ] = ChatQuestion.temperature,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Ask one question. The answer is printed as it arrives.

    - `lora-compose ask "roll table"`
    - `lora-compose ask "roll table" --adapters roll:0.7+upper`
    - `lora-compose ask "roll table" --adapters roll+upper --method svd --rank 8`
    """
    model = None if adapters is None else composition_text(adapters, method, rank, density)
    if adapters is None and method is not None:
        raise typer.BadParameter("--method needs --adapters.")
    text = sys.stdin.read() if prompt == "-" else prompt
    question = ChatQuestion(text, model, system, max_tokens, temperature)
    with ChatClient(url, api_key) as client:
        answer = client.stream(question, _ignore if as_json else _write)
    if as_json:
        echo_json(answer.to_dict())
    else:
        typer.echo()
        typer.secho(_summary(answer), err=True, dim=True)
        show_warnings(_warnings_of(adapters, url, api_key))


def _warnings_of(adapters: str | None, url: str, api_key: str | None) -> Sequence[Json]:
    """What the server says of a stack. Nothing if the key may not ask that."""
    if adapters is None or "+" not in adapters:
        return ()
    with suppress(LoraComposeError), Client(url, api_key) as client:
        warnings: list[Json] = client.predict(adapters)["warnings"]
        return warnings
    return ()


def composition_text(
    adapters: str, method: str | None, rank: int | None = None, density: float | None = None
) -> str:
    """`adapters` as an argument of `method` with its options; unchanged without a method.

    Raises InvalidRequest if they contradict each other."""
    options = {"rank": rank, "density": density}
    if method is None:
        if any(value is not None for value in options.values()):
            raise InvalidRequest(CommandCode.MISSING_METHOD, "A rank or a density needs a method.", "method")
        return adapters
    members = parse(adapters, "adapters")
    if not members.is_stack:
        raise InvalidRequest(
            Code.INVALID_COMPOSITION,
            f"{adapters} already names a method, so no other method can be given.",
            "method",
        )
    method = check_method(method, "method")
    return Composition(members.members, method, read_options(method, options, prefix="")).canonical


def _ignore(_: str) -> None:
    pass


def _write(piece: str) -> None:
    typer.echo(piece, nl=False)


def _summary(answer: ChatAnswer) -> str:
    """One line: the model that answered, its tokens and its speed."""
    parts = [answer.model]
    if answer.usage is not None:
        parts.append(f"{answer.usage['completion_tokens']} tokens")
    if answer.time_to_first_token is not None:
        parts.append(f"first token after {answer.time_to_first_token * 1000:.0f} ms")
    if answer.tokens_per_second is not None:
        parts.append(f"{answer.tokens_per_second:.0f} tokens/s")
    if answer.finish_reason == "length":
        parts.append("cut off at --max-tokens")
    return " | ".join(parts)
