"""Counts the tokens of those who pay for them, where vLLM's engine gives them out.

At the HTTP layer they could be counted only from `usage`, which a client that hangs up early never gets.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from vllm.sampling_params import RequestOutputKind

from lora_compose.server.tenants.token_charging import Charge, current_charge


def count_tokens(client: Any) -> None:
    """Make an `AsyncLLM` tell; where nobody is to be told, its generator is passed on as it is."""
    generate = client.generate

    def counted(*args: Any, **named: Any) -> AsyncIterator[Any]:
        charge = current_charge()
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
