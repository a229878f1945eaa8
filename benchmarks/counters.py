"""Reads the server's own counters from `/metrics`."""

import re

import httpx


async def counters(client: httpx.AsyncClient) -> dict[str, float]:
    """All `lora_compose_` samples without labels, by name."""
    text = (await client.get("/metrics")).text
    return {
        name: float(value) for name, value in re.findall(r"^(lora_compose_\w+) (\S+)$", text, re.MULTILINE)
    }
