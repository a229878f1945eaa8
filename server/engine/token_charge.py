"""Counts the tokens of those who pay for them, where vLLM's engine gives them out.

At the HTTP layer they could be counted only from `usage`, which a client that hangs up early never gets.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from typing import Any

from vllm.sampling_params import RequestOutputKind

Charge = Callable[[int], None]
_charge: ContextVar[Charge | None] = ContextVar("charge", default=None)


@contextmanager
def charging(charge: Charge | None) -> Iterator[None]:
    """What is generated in this context, or in tasks begun in it, is told to `charge` as it comes."""
    token = _charge.set(charge)
    try:
        yield
    finally:
        _charge.reset(token)


def count_tokens(client: Any) -> None:
    """Make an `AsyncLLM` tell; where nobody is to be told, its generator is passed on as it is."""
    generate = client.generate

    def counted(*args: Any, **named: Any) -> AsyncIterator[Any]:
        charge = _charge.get()
        outputs: AsyncIterator[Any] = generate(*args, **named)
        return outputs if charge is None else _charged(outputs, charge, _kind(args, named))

    client.generate = counted


def _kind(args: tuple[Any, ...], named: dict[str, Any]) -> RequestOutputKind:
    params = named["sampling_params"] if "sampling_params" in named else args[1]
    kind: RequestOutputKind = params.output_kind
    return kind


async def _charged(outputs: Any, charge: Charge, kind: RequestOutputKind) -> AsyncIterator[Any]:
    told, is_first = 0, True
    async with aclosing(outputs):
        async for output in outputs:
            if is_first:
                charge(len(output.prompt_token_ids or ()))
                is_first = False
            count = sum(len(each.token_ids) for each in output.outputs)
            # Only a cumulative output repeats what the one before it had.
            charge(count - told)
            told = count if kind == RequestOutputKind.CUMULATIVE else 0
            yield output
