"""The supported layouts of training data, as a table, and how each is converted to one of TRL's forms.

A layout is recognised by its columns. Columns that the layout does not use are left out and counted by the
reader. A row that fits two layouts of one kind is refused. A conversation is an optional system message, then
user and assistant messages in turn.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypedDict

from lora_compose.training.data.errors import BadRow


class Message(TypedDict):
    """One message. `role` is system, user or assistant."""

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
"""Names of roles in common data sets, and our names for them."""

CALLS: Final = ("tool_calls", "function_call")


def text(value: object, field: str) -> str:
    """`value` if it is a text that is not blank. Spaces around it are kept. Raises BadRow."""
    if value is None:
        raise BadRow(f"{field} is missing")
    if not isinstance(value, str):
        raise BadRow(f"{field} is {type(value).__name__}, not text")
    if not value.strip():
        raise BadRow(f"{field} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadRow(f"{field} contains a lone surrogate, which is not a valid character") from None
    return value


def messages(value: object, field: str, keys: tuple[str, str] = ("role", "content")) -> list[Message]:
    """A list of messages with role and content under `keys`. Their order is not checked."""
    if value is None:
        raise BadRow(f"{field} is missing")
    if not isinstance(value, list) or not value:
        raise BadRow(f"{field} is not a list of messages")
    return [_message(item, f"{field}[{index}]", keys) for index, item in enumerate(value)]


def _message(value: Any, field: str, keys: tuple[str, str]) -> Message:
    if not isinstance(value, dict):
        raise BadRow(f"{field} is {type(value).__name__}, not a message")
    if any(value.get(call) is not None for call in CALLS):
        raise BadRow(f"{field} calls a tool. Only texts of system, user and assistant are supported")
    role, content = (value.get(key) for key in keys)
    if role not in ROLES:
        raise BadRow(f"{field}.{keys[0]} is {role!r}, not one of {', '.join(ROLES)}")
    return {"role": ROLES[role], "content": text(content, f"{field}.{keys[1]}")}


def extra_keys(value: object, keys: tuple[str, str]) -> set[str]:
    """Keys of a row's messages other than role and content."""
    dicts = [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
    return {key for item in dicts for key, held in item.items() if held is not None} - set(keys)


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
    """A layout of rows. A row with all `required` columns fits; `optional` columns are used if present."""

    name: str
    form: Form
    required: frozenset[str]
    optional: frozenset[str]
    convert: Callable[[Record], Row]

    def fits(self, record: Record) -> bool:
        return all(record.get(column) is not None for column in self.required)


def _system_message(system: object, field: str) -> list[Message]:
    """A list of the system message, empty if there is no text for it."""
    return [{"role": "system", "content": text(system, field)}] if system else []


def prompt_of(value: object, field: str = "prompt") -> list[Message]:
    """A prompt from a text, or from messages that end with one of the user."""
    if not isinstance(value, list):
        return [{"role": "user", "content": text(value, field)}]
    turns = messages(value, field)
    check_order(turns, field, first="user", last="user")
    return turns


def answer_of(value: object, field: str, prompt: list[Message]) -> list[Message]:
    """An answer from a text, or from messages, which may begin with the prompt."""
    if not isinstance(value, list):
        return [{"role": "assistant", "content": text(value, field)}]
    turns = messages(value, field)
    if turns[: len(prompt)] == prompt:
        turns = turns[len(prompt) :]
    if not turns:
        raise BadRow(f"{field} contains the prompt but no answer")
    check_order(turns, field, first="assistant", last="assistant")
    return turns


def _prompt_completion(record: Record) -> Row:
    if isinstance(record.get("label"), bool):
        raise BadRow(
            "a label of good or bad for one answer is not supported: write pairs of prompt, chosen, rejected"
        )
    prompt = prompt_of(record["prompt"])
    return {"prompt": prompt, "completion": answer_of(record["completion"], "completion", prompt)}


def _conversational(column: str, keys: tuple[str, str]) -> Callable[[Record], Row]:
    def convert(record: Record) -> Row:
        turns = _system_message(record.get("system"), "system") + messages(record[column], column, keys)
        check_order(turns, column, first="user", last="assistant")
        return {"messages": turns}

    return convert


def _preference(record: Record) -> Row:
    prompt = prompt_of(record["prompt"])
    return {"prompt": prompt} | {
        column: answer_of(record[column], column, prompt) for column in ("chosen", "rejected")
    }


def _implicit_preference(record: Record) -> Row:
    """A preference of two conversations.

    The prompt is their common beginning, up to the last user message.
    """
    if not isinstance(record["chosen"], list) or not isinstance(record["rejected"], list):
        raise BadRow("prompt is missing; without it, chosen and rejected must be lists of messages")
    chosen, rejected = (messages(record[column], column) for column in ("chosen", "rejected"))
    for turns, column in ((chosen, "chosen"), (rejected, "rejected")):
        check_order(turns, column, first="user", last="assistant")
    shared = _shared_length(chosen, rejected)
    if not shared:
        raise BadRow("chosen and rejected begin with different prompts")
    return {"prompt": chosen[:shared], "chosen": chosen[shared:], "rejected": rejected[shared:]}


def _shared_length(chosen: list[Message], rejected: list[Message]) -> int:
    """The length of the common beginning that ends with a user message that both answer."""
    shortest = min(len(chosen), len(rejected))
    shared = next((i for i in range(shortest) if chosen[i] != rejected[i]), shortest)
    while shared and (chosen[shared - 1]["role"] != "user" or shared == shortest):
        shared -= 1
    return shared


def _layout(
    name: str, form: Form, columns: str, convert: Callable[[Record], Row], optional: str = ""
) -> Layout:
    return Layout(name, form, frozenset(columns.split()), frozenset(optional.split()), convert)


def _question_answer(name: str, columns: tuple[str, str], context: str = "", system: str = "") -> Layout:
    """A layout of one question and one answer, each in a text column."""
    question, answer = columns

    def convert(record: Record) -> Row:
        content = text(record[question], question)
        if context and record.get(context):
            content = f"{content}\n\n{text(record[context], context)}"
        start = _system_message(record.get(system), system)
        prompt: list[Message] = [*start, {"role": "user", "content": content}]
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
    _question_answer("alpaca", ("instruction", "output"), "input", "system"),
    _question_answer("dolly", ("instruction", "response"), "context"),
    _question_answer("question/answer", ("question", "answer")),
    _question_answer("question/response", ("question", "response"), system="system_prompt"),
    _question_answer("prompt/response", ("prompt", "response"), system="system"),
)
KNOWN: Final = "; ".join(" + ".join(sorted(layout.required)) for layout in LAYOUTS)


def matching_layouts(record: Record) -> tuple[Layout, ...]:
    """The layouts that `record` fits. A row with chosen and rejected answers is always a preference."""
    fits = tuple(layout for layout in LAYOUTS if layout.fits(record))
    return fits[:1] if fits and fits[0].form == "preference" else fits
