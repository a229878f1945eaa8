"""Messages of a conversation: parsing, order, repairs, and which of them are learned."""

from collections.abc import Callable, Sequence
from typing import Any, Final, TypedDict

from lora_compose.training.data.errors import BadRow


class Message(TypedDict):
    """One message. `role` is system, user or assistant."""

    role: str
    content: str


Row = dict[str, list[Message]]
"""A normalised row: `prompt` and `completion`, or `messages`, or `prompt`, `chosen` and `rejected`."""

OnRepair = Callable[[str], None]
"""Gets what was changed in a row, in words that can be counted."""

ROLES: Final = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
}
"""Names of roles in common data sets, and our names for them."""

CALLS: Final = ("tool_calls", "function_call")
TOOL_ROLES: Final = ("tool", "function", "function_call", "observation")
KEYS: Final = (("role", "content"), ("from", "value"))
"""The keys of role and content, of OpenAI and of ShareGPT."""
SWITCHES: Final = ("weight", "train", "loss")
"""Keys of a message that say whether it is learned: OpenAI's `weight`, and `train` and `loss` of others."""
TEXT_PARTS: Final = ("text", "input_text", "output_text")

OPENING_ANSWER: Final = "conversations began with an assistant message, which was left out"
UNANSWERED: Final = "conversations ended with a user message, which was left out"
JOINED: Final = "conversations had successive messages of one role, which were joined"
WEIGHED: Final = (
    "conversations had messages that must not be learned: each other answer became a row of its own"
)


def text(value: object, field: str) -> str:
    """`value` if it is a text that is not blank, or the text of content parts. Spaces around it are kept.

    Raises BadRow.
    """
    if value is None:
        raise BadRow(f"{field} is missing")
    if isinstance(value, list):
        value = "".join(_part(part, f"{field}[{index}]") for index, part in enumerate(value))
    if not isinstance(value, str):
        raise BadRow(f"{field} is {type(value).__name__}, not text")
    if not value.strip():
        raise BadRow(f"{field} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow(f"{field} contains a lone surrogate, which is not a valid character") from None
    return value


def _part(part: Any, field: str) -> str:
    if isinstance(part, str):
        return part
    if (
        not isinstance(part, dict)
        or part.get("type") not in TEXT_PARTS
        or not isinstance(part.get("text"), str)
    ):
        kind = part.get("type") if isinstance(part, dict) else type(part).__name__
        raise BadRow(f"{field} is a content part of type {kind}. Only text is supported")
    return str(part["text"])


def messages(value: object, field: str) -> list[Message]:
    """A list of messages. Their order is not checked. Raises BadRow."""
    return [_message(item, f"{field}[{index}]") for index, item in enumerate(_dicts(value, field))]


def _dicts(value: object, field: str) -> list[Any]:
    if value is None:
        raise BadRow(f"{field} is missing")
    if not isinstance(value, list) or not value:
        raise BadRow(f"{field} is not a list of messages")
    return value


def _message(value: Any, field: str) -> Message:
    if not isinstance(value, dict):
        raise BadRow(f"{field} is {type(value).__name__}, not a message")
    role_key, content_key = _keys(value)
    role = value.get(role_key)
    if role in TOOL_ROLES:
        raise BadRow(f"{field}.{role_key} is {role!r}. Messages of tools are not supported")
    if any(value.get(call) is not None for call in CALLS):
        raise BadRow(f"{field} calls a tool. Only texts of system, user and assistant are supported")
    known = ROLES.get(role.strip().casefold()) if isinstance(role, str) else None
    if known is None:
        raise BadRow(f"{field}.{role_key} is {role!r}, not one of {', '.join(ROLES)}")
    return {"role": known, "content": text(value.get(content_key), f"{field}.{content_key}")}


def _keys(message: dict[str, Any]) -> tuple[str, str]:
    return KEYS[1] if "from" in message and "role" not in message else KEYS[0]


def extra_keys(value: object) -> set[str]:
    """Keys of a row's messages that are not used."""
    dicts = [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
    return {
        key
        for item in dicts
        for key, held in item.items()
        if held is not None and key not in _keys(item) and key not in SWITCHES
    }


def check_order(turns: list[Message], field: str, first: str, last: str) -> None:
    """Check that user and assistant alternate, from the role `first` to the role `last`.

    If `first` is user, a system message may come before. Raises BadRow.
    """
    begins = first == "user" and turns[0]["role"] == "system"
    expected = first
    for index, turn in enumerate(turns[begins:], start=begins):
        if turn["role"] != expected:
            raise BadRow(f"{field}[{index}] is a message of {turn['role']}, but {expected} is expected")
        expected = "assistant" if expected == "user" else "user"
    if turns[-1]["role"] != last:
        raise BadRow(f"{field} ends with a message of {turns[-1]['role']}, not of {last}")


def learned(value: object, field: str) -> list[bool]:
    """For each message of a list, whether it is learned. Raises BadRow if a switch is neither on nor off."""
    return [
        all(_is_on(item[key], f"{field}[{index}].{key}") for key in SWITCHES if item.get(key) is not None)
        if isinstance(item, dict)
        else True
        for index, item in enumerate(_dicts(value, field))
    ]


def _is_on(value: object, field: str) -> bool:
    if value not in (0, 1):
        raise BadRow(f"{field} is {value!r}. Only 0 and 1, or false and true, are supported")
    return bool(value)


Turn = tuple[Message, bool]
"""A message, and whether it is learned."""


def conversation(turns: Sequence[Turn], field: str, on_repair: OnRepair) -> list[Turn]:
    """The messages as a system message, if any, then user and assistant in turn, ending with an answer.

    As other trainers do (FastChat's `preprocess`), an assistant message before the first user message is
    left out. Successive messages of one role are joined by a blank line. User messages without an answer
    are left out. Raises BadRow if no answer is left.
    """
    joined = _joined(turns, on_repair)
    system = joined[:1] if joined[0][0]["role"] == "system" else []
    rest = joined[len(system) :]
    if rest and rest[0][0]["role"] == "assistant":
        rest = rest[1:]
        on_repair(OPENING_ANSWER)
    if rest and rest[-1][0]["role"] == "user":
        rest = rest[:-1]
        on_repair(UNANSWERED)
    if not rest:
        raise BadRow(f"{field} has no answer of the assistant to a message of the user")
    check_order([message for message, _ in system + rest], field, first="user", last="assistant")
    return system + rest


def _joined(turns: Sequence[Turn], on_repair: OnRepair) -> list[Turn]:
    made: list[Turn] = []
    for message, is_learned in turns:
        if made and made[-1][0]["role"] == message["role"] and made[-1][1] == is_learned:
            before = made.pop()[0]["content"]
            message = Message(role=message["role"], content=f"{before}\n\n{message['content']}")
        made.append((message, is_learned))
    if len(made) < len(turns):
        on_repair(JOINED)
    return made
