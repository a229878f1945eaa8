"""The supported layouts of training data, as a table, and how each is converted to one of TRL's forms.

A layout is recognised by its columns. Columns that the layout does not use are left out and counted by the
reader. A row that fits two layouts of one kind is refused. A conversation is an optional system message, then
user and assistant messages in turn. What is repaired in a conversation is reported and counted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from lora_compose.training.data.errors import BadRow
from lora_compose.training.data.messages import (
    WEIGHED,
    Message,
    OnRepair,
    Row,
    answers_of,
    check_order,
    conversation,
    learned,
    messages,
    text,
    uses_tools,
)
from lora_compose.training.data.tools import TOOL_COLUMNS, tools_of

Form = Literal["instruction", "conversational", "preference", "unpaired"]
Record = Mapping[str, Any]
Convert = Callable[[Record, OnRepair], list[Row]]
"""Makes the normalised rows of a record, one for most layouts, and reports repairs. Raises BadRow."""

LABEL: Final = "label"
"""The column of an unpaired row that says whether its answer is good."""
COLUMNS: Final[dict[Form, tuple[str, ...]]] = {
    "instruction": ("prompt", "completion"),
    "conversational": ("messages",),
    "preference": ("prompt", "chosen", "rejected"),
    "unpaired": ("prompt", "completion", LABEL),
}
"""The columns of a normalised row. Rows that offer tools also have the column `tools`."""


@dataclass(frozen=True)
class Layout:
    """A layout of rows. A row with all `required` columns fits; `optional` columns are used if present."""

    name: str
    form: Form
    required: frozenset[str]
    optional: frozenset[str]
    convert: "Convert"

    def fits(self, record: Record) -> bool:
        return all(record.get(column) is not None for column in self.required)


def _system_message(system: object, field: str) -> list[Message]:
    """A list of the system message, empty if there is no text for it."""
    return [{"role": "system", "content": text(system, field)}] if system else []


ABSENT: Final = ("", "nan", "none", "null", "<noinput>")
"""What scripts write where there is no input."""


def _is_absent(value: object) -> bool:
    return value is None or (isinstance(value, str) and value.strip().casefold() in ABSENT)


def prompt_of(value: object, field: str = "prompt") -> list[Message]:
    """A prompt from a text, or from messages that end with one of the user."""
    if not isinstance(value, list):
        return [{"role": "user", "content": text(value, field)}]
    turns = messages(value, field)
    check_order(turns, field, first="user", last="user")
    return turns


def answer_of(value: object, field: str, prompt: list[Message]) -> tuple[list[Message], list[Message]]:
    """The prompt and the answer, from a text, a message or messages, which may begin with the prompt.

    A system message before the repeated prompt becomes part of the prompt.
    """
    if isinstance(value, dict):
        value = [value]
    if not isinstance(value, list):
        return prompt, [{"role": "assistant", "content": text(value, field)}]
    turns = messages(value, field)
    if turns[0]["role"] == "system" and turns[1 : 1 + len(prompt)] == prompt:
        prompt = [turns[0], *prompt]
    if turns[: len(prompt)] == prompt:
        turns = turns[len(prompt) :]
    if not turns:
        raise BadRow(f"{field} contains the prompt but no answer")
    check_order(turns, field, first="assistant", last="assistant")
    return prompt, turns


def _offered(record: Record) -> str | None:
    """The definitions of the tools that a row offers, as JSON."""
    return next((tools for name in TOOL_COLUMNS if (tools := tools_of(record.get(name), name))), None)


def _prompt_completion(record: Record, _: OnRepair) -> list[Row]:
    """One row; where the answer calls tools, a row for each message of the assistant."""
    prompt, completion = answer_of(record["completion"], "completion", prompt_of(record["prompt"]))
    tools = _offered(record)
    if tools is None and not uses_tools(completion):
        return [{"prompt": prompt, "completion": completion}]
    turns = [(message, False) for message in prompt] + [(message, True) for message in completion]
    return answers_of(turns, tools)


def _conversational(column: str) -> Convert:
    def convert(record: Record, on_repair: OnRepair) -> list[Row]:
        system = _system_message(record.get("system"), "system")
        turns = [(message, True) for message in [*system, *messages(record[column], column)]]
        return [{"messages": [message for message, _ in conversation(turns, column, on_repair)]}]

    return convert


def _weighed(column: str) -> Convert:
    """Each answer that is learned becomes a row, whose prompt is the conversation before it."""

    def convert(record: Record, on_repair: OnRepair) -> list[Row]:
        system = [(message, False) for message in _system_message(record.get("system"), "system")]
        switches = learned(record[column], column)
        turns = [*system, *zip(messages(record[column], column), switches, strict=True)]
        found = conversation(turns, column, on_repair)
        rows = answers_of(found, _offered(record))
        if not rows:
            raise BadRow(f"no answer in {column} is learned: every weight is 0")
        if not all(switches):
            on_repair(WEIGHED)
        return rows

    return convert


def _preference(record: Record, _: OnRepair) -> list[Row]:
    fields = ("chosen", "rejected")
    return [_pair(prompt_of(record["prompt"]), record, fields, _offered(record))]


def _pair(prompt: list[Message], record: Record, fields: tuple[str, str], tools: str | None) -> Row:
    """A preference. Both answers must be to the same prompt, with the same system message."""
    prompts, answers = zip(*(answer_of(record[field], field, prompt) for field in fields), strict=True)
    if prompts[0] != prompts[1]:
        raise BadRow(f"{' and '.join(fields)} begin with different system messages")
    return _preference_row(prompts[0], answers, fields, tools)


def _preference_row(
    prompt: list[Message], answers: Sequence[list[Message]], fields: Sequence[str], tools: str | None
) -> Row:
    for answer, field in zip(answers, fields, strict=True):
        if any(message["role"] == "tool" for message in answer):
            raise BadRow(
                f"{field} has the answer of a tool, which must not be learned. End {field} with the call, or "
                "put the call and its answer into the prompt"
            )
    offered = {} if tools is None else {"tools": tools}
    return {"prompt": prompt, "chosen": answers[0], "rejected": answers[1], **offered}


def _openai_preference(record: Record, _: OnRepair) -> list[Row]:
    given = record["input"]
    if not isinstance(given, dict):
        raise BadRow(f"input is {type(given).__name__}, not an object with messages")
    prompt = messages(given.get("messages"), "input.messages")
    check_order(prompt, "input.messages", first="user", last="user")
    tools = tools_of(given.get("tools"), "input.tools")
    return [_pair(prompt, record, ("preferred_output", "non_preferred_output"), tools)]


def _implicit_preference(record: Record, _: OnRepair) -> list[Row]:
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
    answers = (chosen[shared:], rejected[shared:])
    return [_preference_row(chosen[:shared], answers, ("chosen", "rejected"), _offered(record))]


def _shared_length(chosen: list[Message], rejected: list[Message]) -> int:
    """The length of the common beginning that ends with a message of the user or a tool that both answer."""
    shortest = min(len(chosen), len(rejected))
    shared = next((i for i in range(shortest) if chosen[i] != rejected[i]), shortest)
    while shared and (chosen[shared - 1]["role"] not in ("user", "tool") or shared == shortest):
        shared -= 1
    return shared


def _layout(name: str, form: Form, columns: str, convert: Convert, optional: str = "") -> Layout:
    return Layout(name, form, frozenset(columns.split()), frozenset(optional.split()), convert)


def _question_answer(name: str, columns: tuple[str, str], context: str = "", system: str = "") -> Layout:
    """A layout of one question and one answer, each in a text column."""
    question, answer = columns

    def convert(record: Record, _: OnRepair) -> list[Row]:
        content = text(record[question], question)
        if context and not _is_absent(record.get(context)):
            content = f"{content}\n\n{text(record[context], context)}"
        start = _system_message(record.get(system), system)
        asked: list[Message] = [*start, {"role": "user", "content": content}]
        prompt, completion = answer_of(record[answer], answer, asked)
        return [{"prompt": prompt, "completion": completion}]

    return _layout(name, "instruction", f"{question} {answer}", convert, f"{context} {system}")


CONVERSATIONS: Final = ("messages", "conversations")
"""Columns of conversations. Both may have OpenAI's keys or ShareGPT's."""

OFFERED: Final = " ".join(TOOL_COLUMNS)

LAYOUTS: Final = (
    _layout("preference", "preference", "prompt chosen rejected", _preference, OFFERED),
    _layout("implicit preference", "preference", "chosen rejected", _implicit_preference, OFFERED),
    _layout(
        "OpenAI preference",
        "preference",
        "input preferred_output non_preferred_output",
        _openai_preference,
    ),
    *(
        _layout(name, "conversational", name, _conversational(name), f"system {OFFERED}")
        for name in CONVERSATIONS
    ),
    _layout("prompt/completion", "instruction", "prompt completion", _prompt_completion, OFFERED),
    _question_answer("alpaca", ("instruction", "output"), "input", "system"),
    _question_answer("dolly", ("instruction", "response"), "context"),
    _question_answer("question/answer", ("question", "answer")),
    _question_answer("question/response", ("question", "response"), system="system_prompt"),
    _question_answer("prompt/response", ("prompt", "response"), system="system"),
)
WEIGHED_LAYOUTS: Final = {
    name: _layout(f"{name} by answers", "instruction", name, _weighed(name), f"system {OFFERED}")
    for name in CONVERSATIONS
}
"""The layouts of conversations that have messages which must not be learned, or calls of tools."""
COLUMN_NAMES: Final = frozenset().union(*(layout.required | layout.optional for layout in LAYOUTS))
"""The columns that some layout uses."""
KNOWN: Final = "; ".join(" + ".join(sorted(layout.required)) for layout in LAYOUTS)


def has_own_rows(record: Record, column: str) -> bool:
    """Whether each answer of a conversation becomes a row of its own: it has weights of 0, or uses tools."""
    offers = any(record.get(name) not in (None, "", []) for name in TOOL_COLUMNS)
    return offers or _has_unlearned(record.get(column), column) or _has_calls(record.get(column), column)


def _has_unlearned(value: object, column: str) -> bool:
    items = value if isinstance(value, list) else []
    try:
        return bool(items) and not all(learned(items, column))
    except BadRow:
        return True  # the row is then refused for the same reason


def _has_calls(value: object, column: str) -> bool:
    try:
        return uses_tools(messages(value, column))
    except BadRow:
        return False  # the row is then refused for the same reason


def matching_layouts(record: Record) -> tuple[Layout, ...]:
    """The layouts that `record` fits. A row with chosen and rejected answers is always a preference."""
    fits = tuple(layout for layout in LAYOUTS if layout.fits(record))
    return fits[:1] if fits and fits[0].form == "preference" else fits
