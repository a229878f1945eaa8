"""Messages of a conversation: parsing, order, repairs, and which of them are learned."""

import json
import string
from collections.abc import Callable, Sequence
from typing import Any, Final, NotRequired, TypedDict

from lora_compose.training.data.errors import BadRow
from lora_compose.training.data.tools import ToolCall, call_text, calls_of, written_calls


class Message(TypedDict):
    """One message. `role` is system, user, assistant or tool."""

    role: str
    content: str
    """Empty only beside calls of tools."""
    tool_calls: NotRequired[list[ToolCall]]
    """The calls of an assistant."""
    tool_call_id: NotRequired[str]
    """The call that a tool answers."""
    name: NotRequired[str]
    """The tool that answers."""


Row = dict[str, Any]
"""A normalised row: `prompt` and `completion`, or `messages`, or `prompt`, `chosen` and `rejected`, each a
list of messages. `tools` has definitions of tools as JSON, or None. `label` says whether an answer is good.
"""
MESSAGE_COLUMNS: Final = ("prompt", "completion", "messages", "chosen", "rejected")

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
CALLING_ROLES: Final = ("function_call", "tool_call")
"""Roles of ShareGPT's messages whose value is a call."""
TOOL_ROLES: Final = ("tool", "function", "observation", "tool_response", "function_response", "ipython")
USED_KEYS: Final = ("tool_calls", "function_call", "tool_call_id", "name")
KEYS: Final = (("role", "content"), ("from", "value"))
"""The keys of role and content, of OpenAI and of ShareGPT."""
SWITCHES: Final = ("weight", "train", "loss")
"""Keys of a message that say whether it is learned: OpenAI's `weight`, and `train` and `loss` of others."""
INVISIBLE: Final = string.whitespace + "\u00a0\u200b\u200c\u200d\u2060\u3000\ufeff"
"""White space, and characters without a width."""
TEXT_PARTS: Final = ("text", "input_text", "output_text")

OPENING_ANSWER: Final = "conversations began with an assistant message, which was left out"
UNANSWERED: Final = "conversations ended with a message of user or tool, which was left out"
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
    if not value.strip(INVISIBLE):
        raise BadRow(f"{field} is empty")
    if "\0" in value:
        raise BadRow(f"{field} contains a NUL character. Save the file again as text")
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


def columns(row: Row) -> dict[str, list[Message]]:
    """The columns of a row that hold messages."""
    return {name: row[name] for name in MESSAGE_COLUMNS if name in row}


def said(message: Message) -> str:
    """All that a message says: its content, and its calls of tools."""
    calls = message.get("tool_calls")
    if not calls:
        return message["content"]
    return "\n".join(filter(None, (message["content"], call_text(calls))))


def uses_tools(turns: Sequence[Message]) -> bool:
    """Whether a message calls a tool, or is the answer of one."""
    return any(turn["role"] == "tool" or "tool_calls" in turn for turn in turns)


def messages(value: object, field: str) -> list[Message]:
    """A list of messages. Their order is not checked. Raises BadRow."""
    return [_message(item, f"{field}[{index}]", index) for index, item in enumerate(_dicts(value, field))]


def _dicts(value: object, field: str) -> list[Any]:
    if value is None:
        raise BadRow(f"{field} is missing")
    if isinstance(value, str):
        value = _parsed_list(value, field)
    if not isinstance(value, list) or not value:
        raise BadRow(f"{field} is not a list of messages")
    return value


def _parsed_list(value: str, field: str) -> Any:
    """The messages of a list that was written as JSON, as in a cell of a table."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise BadRow(f"{field} is a text, and not a list of messages or JSON of one") from None


def _message(value: Any, field: str, index: int) -> Message:
    if not isinstance(value, dict):
        raise BadRow(f"{field} is {type(value).__name__}, not a message")
    role_key, content_key = _keys(value)
    role, content = value.get(role_key), value.get(content_key)
    plain = role.strip().casefold() if isinstance(role, str) else None
    place = f"{field}.{content_key}"
    if plain in CALLING_ROLES:
        return {"role": "assistant", "content": "", "tool_calls": written_calls(content, place, index)}
    if plain in TOOL_ROLES:
        return _tool_message(value, content, place)
    known = ROLES.get(plain) if plain is not None else None
    if known is None:
        raise BadRow(f"{field}.{role_key} is {role!r}, not one of {', '.join((*ROLES, 'tool'))}")
    if calls := calls_of(value, field, index):
        if known != "assistant":
            raise BadRow(f"{field} is a message of {known}, and only the assistant can call a tool")
        said_too = text(content, place) if content and content != [] else ""
        return {"role": known, "content": said_too, "tool_calls": calls}
    return {"role": known, "content": text(content, place)}


def _tool_message(value: dict[str, Any], content: object, place: str) -> Message:
    """The answer of a tool, which may be empty, or a value of JSON."""
    if content is not None and not isinstance(content, str | list):
        content = json.dumps(content, ensure_ascii=False)
    message = Message(role="tool", content=text(content, place) if content else "")
    if isinstance(value.get("tool_call_id"), str):
        message["tool_call_id"] = value["tool_call_id"]
    if isinstance(value.get("name"), str):
        message["name"] = value["name"]
    return message


def _keys(message: dict[str, Any]) -> tuple[str, str]:
    return KEYS[1] if "from" in message and "role" not in message else KEYS[0]


def extra_keys(value: object) -> set[str]:
    """Keys of a row's messages that are not used."""
    dicts = [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
    return {
        key
        for item in dicts
        for key, held in item.items()
        if held is not None and key not in _keys(item) and key not in (*SWITCHES, *USED_KEYS)
    }


def check_order(turns: list[Message], field: str, first: str, last: str) -> None:
    """Check that user and assistant alternate, from the role `first` to the role `last`.

    If `first` is user, a system message may come before. Tools answer after a call, and after them the
    assistant goes on, so a prompt may also end with the answer of a tool. Raises BadRow.
    """
    begins = first == "user" and turns[0]["role"] == "system"
    expected: tuple[str, ...] = (first,)
    for index, turn in enumerate(turns[begins:], start=begins):
        if turn["role"] not in expected:
            advice = ". " + SYSTEM_ADVICE if turn["role"] == "system" else ""
            raise BadRow(
                f"{field}[{index}] is a message of {turn['role']}, but {expected[0]} is expected{advice}"
            )
        expected = _next_roles(turn)
    lasts = (last, "tool") if last == "user" else (last,)
    if turns[-1]["role"] not in lasts:
        raise BadRow(f"{field} ends with a message of {turns[-1]['role']}, not of {last}")
    _check_calls(turns, field)


SYSTEM_ADVICE: Final = "Move it to the beginning, or into the next message of the user"


def _next_roles(turn: Message) -> tuple[str, ...]:
    if turn["role"] == "assistant":
        return ("tool",) if "tool_calls" in turn else ("user", "tool")
    return ("assistant", "tool") if turn["role"] == "tool" else ("assistant",)


def _check_calls(turns: Sequence[Message], field: str) -> None:
    """Check that each answer of a tool is for a call before it."""
    known: set[str] = set()
    for index, turn in enumerate(turns):
        known.update(call["id"] for call in turn.get("tool_calls", ()))
        call = turn.get("tool_call_id")
        if call is not None and known and call not in known:
            raise BadRow(f"{field}[{index}].tool_call_id is {call!r}, which no call before it has")


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
    left out. Successive messages of one role are joined by a blank line. User messages and answers of tools
    without an answer are left out. Raises BadRow if no answer is left.
    """
    joined = _joined(turns, on_repair)
    opening = next((i for i, (message, _) in enumerate(joined) if message["role"] == "user"), len(joined))
    system = _joined([turn for turn in joined[:opening] if turn[0]["role"] == "system"], on_repair)
    if len(system) < opening:
        on_repair(OPENING_ANSWER)
    rest = joined[opening:]
    if rest and rest[-1][0]["role"] != "assistant":
        on_repair(UNANSWERED)
    while rest and rest[-1][0]["role"] != "assistant":
        rest = rest[:-1]
    if not rest:
        raise BadRow(f"{field} has no answer of the assistant to a message of the user")
    check_order([message for message, _ in system + rest], field, first="user", last="assistant")
    return system + rest


def _joined(turns: Sequence[Turn], on_repair: OnRepair) -> list[Turn]:
    made: list[Turn] = []
    for message, is_learned in turns:
        if made and _are_one(made[-1][0], message) and made[-1][1] == is_learned:
            before = made.pop()[0]["content"]
            content = f"{before}\n\n{message['content']}" if message["content"] else before
            message = Message(**{**message, "content": content})
        made.append((message, is_learned))
    if len(made) < len(turns):
        on_repair(JOINED)
    return made


def _are_one(before: Message, message: Message) -> bool:
    """Whether two successive messages are joined. A call is the end of a message."""
    return before["role"] == message["role"] != "tool" and "tool_calls" not in before


def answers_of(turns: Sequence[Turn], tools: str | None) -> list[Row]:
    """A row for each answer that is learned, whose prompt is the conversation before it."""
    before = [message for message, _ in turns]
    offered = {} if tools is None else {"tools": tools}
    return [
        {"prompt": before[:index], "completion": [message], **offered}
        for index, (message, is_learned) in enumerate(turns)
        if message["role"] == "assistant" and is_learned
    ]
