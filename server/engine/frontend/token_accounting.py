"""Counts the tokens of keys with a token quota, where vLLM's engine produces them.

The HTTP layer could count them only from `usage`, which is not sent if the client disconnects early.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from vllm.sampling_params import RequestOutputKind

from lora_compose.server.tenants.token_charging import Charge, current_charge


def count_tokens(client: Any) -> None:
    """Wrap `generate` and `encode` of an `AsyncLLM`.

    Without a charge for the current request its generator is unchanged."""
    generate, encode = client.generate, client.encode

    def counted(*args: Any, **named: Any) -> AsyncIterator[Any]:
        charge = current_charge()
        outputs: AsyncIterator[Any] = generate(*args, **named)
        return outputs if charge is None else _charged(outputs, charge, _kind(args, named))

    def counted_prompts(*args: Any, **named: Any) -> AsyncIterator[Any]:
        charge = current_charge()
        outputs: AsyncIterator[Any] = encode(*args, **named)
        return outputs if charge is None else _charged_prompt(outputs, charge)

    client.generate, client.encode = counted, counted_prompts


async def _charged_prompt(outputs: Any, charge: Charge) -> AsyncIterator[Any]:
    is_first = True
    async with aclosing(outputs):
        async for output in outputs:
            if is_first:
                charge(len(output.prompt_token_ids or ()))
                is_first = False
            yield output


def _kind(args: tuple[Any, ...], named: dict[str, Any]) -> RequestOutputKind:
    params = named["sampling_params"] if "sampling_params" in named else args[1]
    kind: RequestOutputKind = params.output_kind
    return kind


async def _charged(outputs: Any, charge: Charge, kind: RequestOutputKind) -> AsyncIterator[Any]:
    charged, is_first = 0, True
    async with aclosing(outputs):
        async for output in outputs:
            if is_first:
                charge(len(output.prompt_token_ids or ()))
                is_first = False
            count = sum(len(completion.token_ids) for completion in output.outputs)
            # Only a cumulative output repeats the tokens of the output before it.
            charge(count - charged)
            charged = count if kind == RequestOutputKind.CUMULATIVE else 0
            yield output
