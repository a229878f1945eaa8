"""One message, and what a conversation must look like.

That is an optional system message, then user and assistant in turn.
"""

from typing import Any, Final, TypedDict

from training.data.rejected import BadRow


class Message(TypedDict):
    """One turn; `role` is system, user or assistant."""

    role: str
    content: str


Row = dict[str, list[Message]]
"""A normalised row: `prompt` and `completion`, or `messages`, or `prompt`, `chosen` and `rejected`."""

ROLES: Final = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
"""Names of roles in the wild, and ours."""

CALLS: Final = ("tool_calls", "function_call")


def text(value: object, field: str) -> str:
    """`value` if it is a text that says something; spaces round it are kept."""
    if value is None:
        raise BadRow(f"{field} is missing")
    if not isinstance(value, str):
        raise BadRow(f"{field} is {type(value).__name__}, not text")
    if not value.strip():
        raise BadRow(f"{field} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow(f"{field} holds half a character (a lone surrogate)") from None
    return value


def messages(value: object, field: str, keys: tuple[str, str] = ("role", "content")) -> list[Message]:
    """A list of messages whose role and content are under `keys`; their order is not looked at."""
    if value is None:
        raise BadRow(f"{field} is missing")
    if not isinstance(value, list) or not value:
        raise BadRow(f"{field} is not a list of messages")
    return [_message(each, f"{field}[{index}]", keys) for index, each in enumerate(value)]


def _message(value: Any, field: str, keys: tuple[str, str]) -> Message:
    if not isinstance(value, dict):
        raise BadRow(f"{field} is {type(value).__name__}, not a message")
    if any(value.get(call) is not None for call in CALLS):
        raise BadRow(f"{field} calls a tool; only system, user and assistant texts are supported")
    role, content = (value.get(key) for key in keys)
    if role not in ROLES:
        raise BadRow(f"{field}.{keys[0]} is {role!r}, not one of {', '.join(ROLES)}")
    return {"role": ROLES[role], "content": text(content, f"{field}.{keys[1]}")}


def extra_keys(value: object, keys: tuple[str, str]) -> set[str]:
    """What messages of a row carry besides role and content."""
    dicts = [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
    return {key for each in dicts for key, held in each.items() if held is not None} - set(keys)


def check_order(turns: list[Message], field: str, first: str, last: str) -> None:
    """`turns` take turns, from `first` (after a system message, where a conversation begins) to `last`."""
    begins = first == "user" and turns[0]["role"] == "system"
    expected = first
    for index, turn in enumerate(turns[begins:], start=begins):
        if turn["role"] != expected:
            raise BadRow(f"{field}[{index}] is {turn['role']} where {expected} was due")
        expected = "assistant" if expected == "user" else "user"
    if turns[-1]["role"] != last:
        raise BadRow(f"{field} ends with {turns[-1]['role']}, not {last}")
