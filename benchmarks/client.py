"""Connections of the load generator, and the path that it sends to."""

import httpx

PATH = "/v1/completions"
TIMEOUT = httpx.Timeout(120)
# Servers close idle connections after 5 s (uvicorn's default), and httpx would reuse them for as long.
KEEP_ALIVE_SECONDS = 2.0


def open_client(url: str, concurrency: int, api_key: str | None = None) -> httpx.AsyncClient:
    """Connections for `concurrency` requests at once, kept open between them."""
    limits = httpx.Limits(max_connections=concurrency, keepalive_expiry=KEEP_ALIVE_SECONDS)
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    return httpx.AsyncClient(base_url=url, limits=limits, headers=headers, timeout=TIMEOUT)
