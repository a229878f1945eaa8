"""Our server's own counters, read off `/metrics`."""

import re

import httpx


async def counters(client: httpx.AsyncClient) -> dict[str, float]:
    """Every `lora_compose_` sample without labels, by name."""
    text = (await client.get("/metrics")).text
    return {
        name: float(value) for name, value in re.findall(r"^(lora_compose_\w+) (\S+)$", text, re.MULTILINE)
    }
