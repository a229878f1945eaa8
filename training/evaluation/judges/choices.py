"""The judge `choice`: whether the answer names the right option, by its letter or by its text."""

from collections.abc import Mapping, Sequence
from string import ascii_uppercase
from typing import Any, Final

import regex  # type: ignore[import-untyped]

from lora_compose.training.evaluation.judges.json_values import parsed
from lora_compose.training.evaluation.judges.judge import Options
from lora_compose.training.evaluation.judges.question import Question

Texts = Mapping[str, str]
"""The text of each option by its label. The text is empty if only the label is known."""
_LISTED: Final = regex.compile(r"^\s*[(\[]?([A-Z])[)\].:]\s+(\S.*?)\s*$", regex.MULTILINE)
_MARKUP: Final = regex.compile(r"\\(?:boxed|text|mathrm|textbf)\{([^{}]*)\}|[*`_]+")
_PHRASE: Final = regex.compile(
    r"(?i:\b(?:answer|option|choice|correct(?: one)?)\b(?:\s+(?:is|would be|must be|should be))?\s*[:=]?\s*)"
    r"(?i:(?:option|choice)\s+)?"
)
_CLOSED: Final = regex.compile(r"[(\[]([A-Z0-9])[)\]]")


def chooses(question: Question, answer: str, options: Options) -> float:
    """1 if the answer names the right option and no other. Raises ValueError as `options_of` does."""
    texts = options_of(question, options)
    return float(chosen(answer, texts) == _right(question, texts))


def check_choice(question: Question, options: Options) -> None:
    """Raises ValueError if the options are not clear, or do not have the right answer."""
    _right(question, options_of(question, options))


def options_of(question: Question, options: Options) -> Texts:
    """The options of a question.

    They are in the column `options`: a list of texts, an object of texts by label, the lists `label` and
    `text`, or one text with | between them. Without the column, they are the lines of the prompt such as
    `B) Paris`. Without these lines, they are the letters A to Z. Raises ValueError.
    """
    given = options.get("options")
    if given is None:
        return _listed(question) or dict.fromkeys(ascii_uppercase, "")
    texts = _given(given)
    if len(texts) < 2 or not all(isinstance(text, str) and text.strip() for text in texts.values()):
        raise ValueError("options must be at least two texts")
    return texts


def _given(given: Any) -> dict[str, Any]:
    if isinstance(given, str):  # a cell of a table
        listed = parsed(given)
        given = listed if isinstance(listed, list | dict) else [part.strip() for part in given.split("|")]
    if isinstance(given, Mapping):
        if isinstance(given.get("label"), list) and isinstance(given.get("text"), list):
            return dict(zip(map(str, given["label"]), given["text"], strict=False))
        return {str(label): text for label, text in given.items() if text is not None}
    if isinstance(given, Sequence) and len(given) <= len(ascii_uppercase):
        return dict(zip(ascii_uppercase, given, strict=False))
    raise ValueError("options must be a list of texts, or an object of texts by label")


def _listed(question: Question) -> dict[str, str]:
    """The options in the last message of the prompt, if their letters begin with A and leave none out."""
    found = dict(_LISTED.findall(question.prompt[-1]["content"])) if question.prompt else {}
    is_whole = "".join(found) == ascii_uppercase[: len(found)]
    return found if len(found) > 1 and is_whole else {}


def _right(question: Question, texts: Texts) -> str:
    label = chosen(question.answer, texts)
    if label is None:
        raise ValueError(f"the right answer is not one of the options: {question.answer!r:.60}")
    return label


def chosen(answer: str, texts: Texts) -> str | None:
    """The label of the option that an answer names, None if it names none or several.

    The first rule that finds an option decides: the whole answer; what follows "the answer is"; how the
    answer begins; labels in brackets; the texts of options; letters that stand alone.
    """
    plain = _MARKUP.sub(lambda match: match[1] or "", answer).strip()
    after = [plain[match.end() :] for match in _PHRASE.finditer(plain)]
    begun = (_at_start(part, texts) for part in (*reversed(after), plain))
    return (
        _whole(plain, texts)
        or next((label for label in begun if label), None)
        or _only({label for label in _CLOSED.findall(plain) if label in texts})
        or _only(_mentioned(plain, texts))
        or _only({label for label in texts if label not in "AI" and _stands_alone(label, plain)})
    )


def _whole(plain: str, texts: Texts) -> str | None:
    text = _folded(plain)
    return next((label for label, own in texts.items() if own and _folded(own) == text), None) or next(
        (label for label in texts if label.casefold() == text), None
    )


def _at_start(part: str, texts: Texts) -> str | None:
    """The option that a part of the answer begins with: `B)`, `(b)`, `B.`, a single `B`, or its text."""
    for label in texts:
        own = regex.escape(label)
        closed = rf"(?i:[(\[]?{own}[)\].:](?!\w))"
        if regex.match(rf"{closed}|[(\[]?{own}(?:,|\s*[-–—]\s|\s+(?:is|because)\b|\s*$|\s*\n)", part):
            return label
    starting = [
        label
        for label, own in texts.items()
        if own and regex.match(rf"[\"'“]?{regex.escape(own.strip())}\b", part, regex.IGNORECASE)
    ]
    return max(starting, key=lambda label: len(texts[label]), default=None)


def _mentioned(plain: str, texts: Texts) -> set[str]:
    """The options whose text is in the answer. A text that is part of another found text does not count."""
    found = {
        label: own.strip().casefold()
        for label, own in texts.items()
        if own and regex.search(rf"(?<!\w){regex.escape(own.strip())}(?!\w)", plain, regex.IGNORECASE)
    }
    return {
        label
        for label, own in found.items()
        if not any(own != other and own in other for other in found.values())
    }


def _stands_alone(label: str, plain: str) -> bool:
    return regex.search(rf"(?<![\w'’]){regex.escape(label)}(?![\w'’])", plain) is not None


def _only(labels: set[str]) -> str | None:
    return next(iter(labels)) if len(labels) == 1 else None


def _folded(text: str) -> str:
    return " ".join(text.casefold().strip(" \t\n.,;:!?()[]\"'“”").split())
