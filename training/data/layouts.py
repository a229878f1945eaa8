"""The layouts data comes in, as rows of one table, and how each becomes one of TRL's forms.

A layout is known by its columns. Columns that no layout uses are left out of the result and counted by the
reader; a row that fits two layouts of one kind is refused rather than guessed.

One message, and what a conversation must look like.

That is an optional system message, then user and assistant in turn.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

from lora_compose.training.data.errors import BadRow


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


Form = Literal["instruction", "conversational", "preference"]
Record = Mapping[str, Any]

SHAREGPT_KEYS: Final = ("from", "value")
COLUMNS: Final[dict[Form, tuple[str, ...]]] = {
    "instruction": ("prompt", "completion"),
    "conversational": ("messages",),
    "preference": ("prompt", "chosen", "rejected"),
}
"""The columns of a normalised row."""


@dataclass(frozen=True)
class Layout:
    """A way to write rows: `required` columns make it, `optional` ones are used if they are there."""

    name: str
    form: Form
    required: frozenset[str]
    optional: frozenset[str]
    convert: Callable[[Record], Row]

    def fits(self, record: Record) -> bool:
        return all(record.get(column) is not None for column in self.required)


def _opened(system: object, field: str) -> list[Message]:
    """The system message a conversation begins with, or none."""
    return [{"role": "system", "content": text(system, field)}] if system else []


def prompt_of(value: object, field: str = "prompt") -> list[Message]:
    """A prompt from one text or from messages that end with the user's."""
    if not isinstance(value, list):
        return [{"role": "user", "content": text(value, field)}]
    turns = messages(value, field)
    check_order(turns, field, first="user", last="user")
    return turns


def answer_of(value: object, field: str, prompt: list[Message]) -> list[Message]:
    """An answer from one text or from messages; the prompt may be repeated before it."""
    if not isinstance(value, list):
        return [{"role": "assistant", "content": text(value, field)}]
    turns = messages(value, field)
    if turns[: len(prompt)] == prompt:
        turns = turns[len(prompt) :]
    if not turns:
        raise BadRow(f"{field} holds the prompt and no answer")
    check_order(turns, field, first="assistant", last="assistant")
    return turns


def _prompt_completion(record: Record) -> Row:
    if isinstance(record.get("label"), bool):
        raise BadRow("label says good or bad of one answer; write pairs instead: prompt, chosen, rejected")
    prompt = prompt_of(record["prompt"])
    return {"prompt": prompt, "completion": answer_of(record["completion"], "completion", prompt)}


def _conversational(column: str, keys: tuple[str, str]) -> Callable[[Record], Row]:
    def convert(record: Record) -> Row:
        turns = _opened(record.get("system"), "system") + messages(record[column], column, keys)
        check_order(turns, column, first="user", last="assistant")
        return {"messages": turns}

    return convert


def _preference(record: Record) -> Row:
    prompt = prompt_of(record["prompt"])
    return {"prompt": prompt} | {
        column: answer_of(record[column], column, prompt) for column in ("chosen", "rejected")
    }


def _implicit_preference(record: Record) -> Row:
    """The prompt is what two conversations share, up to the last user turn."""
    if not isinstance(record["chosen"], list) or not isinstance(record["rejected"], list):
        raise BadRow("prompt is missing, and only messages can hold it inside chosen and rejected")
    chosen, rejected = (messages(record[column], column) for column in ("chosen", "rejected"))
    for turns, column in ((chosen, "chosen"), (rejected, "rejected")):
        check_order(turns, column, first="user", last="assistant")
    shared = _shared_length(chosen, rejected)
    if not shared:
        raise BadRow("chosen and rejected begin with different prompts")
    return {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}


def _shared_length(chosen: list[Message], rejected: list[Message]) -> int:
    """How many messages both begin with, up to a user turn that both answer."""
    shortest = min(len(chosen), len(rejected))
    shared = next((i for i in range(shortest) if chosen[i] != rejected[i]), shortest)
    while shared and (chosen[shared - 1]["role"] != "user" or shared == shortest):
        shared -= 1
    return shared


def _layout(
    name: str, form: Form, columns: str, convert: Callable[[Record], Row], optional: str = ""
) -> Layout:
    return Layout(name, form, frozenset(columns.split()), frozenset(optional.split()), convert)


def _asked(name: str, columns: tuple[str, str], context: str = "", system: str = "") -> Layout:
    """A layout of one question and one answer, each a column of text."""
    question, answer = columns

    def convert(record: Record) -> Row:
        asked = text(record[question], question)
        if context and record.get(context):
            asked = f"{asked}\n\n{text(record[context], context)}"
        prompt: list[Message] = [*_opened(record.get(system), system), {"role": "user", "content": asked}]
        return {"prompt": prompt, "completion": answer_of(record[answer], answer, prompt)}

    return _layout(name, "instruction", f"{question} {answer}", convert, f"{context} {system}")


LAYOUTS: Final = (
    _layout("preference", "preference", "prompt chosen rejected", _preference),
    _layout("implicit preference", "preference", "chosen rejected", _implicit_preference),
    _layout("messages", "conversational", "messages", _conversational("messages", ("role", "content"))),
    _layout(
        "sharegpt",
        "conversational",
        "conversations",
        _conversational("conversations", SHAREGPT_KEYS),
        "system",
    ),
    _layout("prompt/completion", "instruction", "prompt completion", _prompt_completion, "label"),
    _asked("alpaca", ("instruction", "output"), "input", "system"),
    _asked("dolly", ("instruction", "response"), "context"),
    _asked("question/answer", ("question", "answer")),
    _asked("question/response", ("question", "response"), system="system_prompt"),
    _asked("prompt/response", ("prompt", "response"), system="system"),
)
KNOWN: Final = "; ".join(" + ".join(sorted(layout.required)) for layout in LAYOUTS)


def fitting(record: Record) -> tuple[Layout, ...]:
    """The layouts `record` fits; a pair of answers is a preference whatever else the row holds."""
    fits = tuple(layout for layout in LAYOUTS if layout.fits(record))
    return fits[:1] if fits and fits[0].form == "preference" else fits
