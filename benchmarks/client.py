"""The HTTP connections of the load generator, and the path of its requests."""

import httpx

PATH = "/v1/completions"
TIMEOUT = httpx.Timeout(120)
# uvicorn closes idle connections after 5 s. httpx must stop reusing a connection before that.
KEEP_ALIVE_SECONDS = 2.0


def open_client(url: str, concurrency: int, api_key: str | None = None) -> httpx.AsyncClient:
    """A client with at most `concurrency` connections, which stay open between requests."""
    limits = httpx.Limits(max_connections=concurrency, keepalive_expiry=KEEP_ALIVE_SECONDS)
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    return httpx.AsyncClient(base_url=url, limits=limits, headers=headers, timeout=TIMEOUT)
