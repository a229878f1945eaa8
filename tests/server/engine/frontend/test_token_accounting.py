"""Tokens are charged where the engine computes them, also those of texts that are embedded."""

from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

from lora_compose.server.engine.frontend.token_accounting import count_tokens
from lora_compose.server.tenants.token_charging import charging


async def embedded(_: str) -> AsyncIterator[Any]:
    for is_finished in (False, True):
        yield SimpleNamespace(prompt_token_ids=[1, 2, 3], finished=is_finished)


async def test_a_text_is_charged_once_and_only_for_a_key_that_pays() -> None:
    client = SimpleNamespace(generate=None, encode=embedded)
    count_tokens(client)
    charged: list[int] = []
    for charge in (charged.append, None):
        with charging(charge):
            assert len([output async for output in client.encode("a")]) == 2
    assert charged == [3]
