"""Splits a stream of server-sent events, as vLLM writes it."""

DONE = b"[DONE]"
"""The data of the last event."""
_END = b"\n\n"


def events(received: bytes) -> tuple[list[bytes], bytes]:
    """(the data of each complete event, the rest). vLLM writes each event as one `data:` line."""
    *complete, rest = received.split(_END)
    return [event.removeprefix(b"data:").strip() for event in complete if event.strip()], rest
