"""What a server answers to the same tokens and chats."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import torch

from tests.campaigns.real_model.chats import Chat

IN_FLIGHT = 8


class Served:
    """A running server, asked over HTTP."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=600)

    def logprobs(self, model: str, ids: Sequence[int]) -> torch.Tensor:
        """The log-probability of each token after the first one."""
        body = {"model": model, "prompt": list(ids), "max_tokens": 1, "temperature": 0, "prompt_logprobs": 0}
        rows = self._post("/v1/completions", body)["choices"][0]["prompt_logprobs"]
        found = [row[str(token)]["logprob"] for row, token in zip(rows[1:], ids[1:], strict=True)]
        return torch.tensor(found, dtype=torch.float64)

    def greedy(self, model: str, chats: Sequence[Chat], max_tokens: int) -> list[list[int]]:
        """The tokens of each answer. Several requests are in flight."""

        def ask(chat: Chat) -> list[int]:
            body = {"model": model, "messages": list(chat), "max_tokens": max_tokens, "temperature": 0}
            choice = self._post("/v1/chat/completions", body | {"return_token_ids": True})["choices"][0]
            return list(choice["token_ids"])

        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            return list(pool.map(ask, chats))

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        reply = self._client.post(path, json=body)
        if reply.is_error:
            raise RuntimeError(f"{path} answered {reply.status_code}: {reply.text}")
        return reply.json()
