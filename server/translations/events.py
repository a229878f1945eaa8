"""Splits a stream of server-sent events, as vLLM writes it."""

DONE = b"[DONE]"
"""The data of the last event."""
_DATA, _END = b"data:", b"\n\n"


def events(received: bytes) -> tuple[list[bytes], bytes]:
    """(the data of each complete event, the rest). vLLM writes each event as one `data:` line.

    Comments, which vLLM may send to keep the connection open, are left out."""
    *complete, rest = received.split(_END)
    data = (event.lstrip(b"\n") for event in complete)
    return [event.removeprefix(_DATA).strip() for event in data if event.startswith(_DATA)], rest
