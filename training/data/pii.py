"""Find and mask personal data in texts: what has a pattern (`pii_patterns.py`), and telephone numbers.

Addresses that belong to no person are left alone: loopback, private, reserved and documentation addresses,
and the domains of RFC 2606. Names of people and postal addresses are not found.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lora_compose.training.data.messages import Message, Row, columns, said
from lora_compose.training.data.pii_patterns import DETECTORS
from lora_compose.training.data.telephones import telephones

REGIONS: Final = ("US", "GB", "DE", "FR", "ES", "KR", "JP")
"""Regions of telephone numbers without a country code."""


@dataclass(frozen=True)
class PiiMatch:
    """One item of personal data, at `text[start:end]`."""

    kind: str
    start: int
    end: int
    value: str


PLAIN: Final = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F) if code != 0xFF1A} | {
    0x00A0: " ",
    0x202F: " ",
    0x3000: " ",
    0x2011: "-",
    0x2010: "-",
}
"""Full-width signs, and spaces and hyphens that do not break, with the signs that the patterns have. The
length of a text stays. A full-width colon stays too: an address has only the ASCII one.
"""


def find(text: str, regions: Sequence[str] = REGIONS) -> list[PiiMatch]:
    """All items, in the order of the text.

    If two overlap, the detector that comes first in the table wins.
    """
    plain, found = text.translate(PLAIN), list[PiiMatch]()
    for kind, start, end in (*_by_pattern(plain), *_by_telephone(plain, regions)):
        match = PiiMatch(kind, start, end, text[start:end])
        if all(match.end <= other.start or match.start >= other.end for other in found):
            found.append(match)
    return sorted(found, key=lambda match: match.start)


def _by_pattern(text: str) -> Iterator[tuple[str, int, int]]:
    for detector in DETECTORS:
        for match in detector.pattern.finditer(text):
            if detector.is_valid(match):
                yield detector.kind, match.start(), match.end()


def _by_telephone(text: str, regions: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    for start, end in telephones(text, regions):
        yield "PHONE", start, end


@dataclass
class Masker:
    """Masks the texts of one data set. Equal values get the same tag in all texts."""

    regions: Sequence[str] = REGIONS
    counts: "Counter[str]" = field(default_factory=Counter)
    """Items masked, by kind."""
    unmasked: "Counter[str]" = field(default_factory=Counter)
    """Items left in answers, by kind."""
    _tags: dict[tuple[str, str], str] = field(default_factory=dict)

    def mask(self, text: str) -> str:
        """`text` with a tag, such as `<EMAIL_1>`, in place of each item found."""
        return self._replaced(text, find(text, self.regions))

    def mask_row(self, row: Row, *, answers: bool) -> Row:
        """The row with masked texts of system and user; with `answers`, also of the assistant.

        Otherwise only those items are masked in an answer that are masked in its row's other messages too.
        If they were not, the row would teach to invent them.
        """
        turns = columns(row)
        others = [said(m) for messages in turns.values() for m in messages if m["role"] != "assistant"]
        asked = {self._key(match) for text in others for match in find(text, self.regions)}

        def masked_answer(text: str) -> str:
            found = find(text, self.regions)
            kept = [] if answers else [match for match in found if self._key(match) not in asked]
            self.unmasked.update(match.kind for match in kept)
            return self._replaced(text, [match for match in found if match not in kept])

        def masked(message: Message) -> Message:
            if message["role"] != "assistant":
                return Message(**{**message, "content": self.mask(message["content"])})
            return _with_texts(message, masked_answer)

        return row | {column: [masked(message) for message in messages] for column, messages in turns.items()}

    def _replaced(self, text: str, found: Sequence[PiiMatch]) -> str:
        for match in reversed(found):
            text = text[: match.start] + self._tag(match) + text[match.end :]
        self.counts.update(match.kind for match in found)
        return text

    @staticmethod
    def _key(match: PiiMatch) -> tuple[str, str]:
        return match.kind, re.sub(r"[\s-]", "", match.value.translate(PLAIN)).casefold()

    def _tag(self, match: PiiMatch) -> str:
        key = self._key(match)
        number = sum(kind == match.kind for kind, _ in self._tags) + 1
        return self._tags.setdefault(key, f"<{match.kind}_{number}>")


def _with_texts(message: Message, change: Callable[[str], str]) -> Message:
    """The message with changed texts: its content, and the texts among the arguments of its calls."""
    changed = Message(**{**message, "content": change(message["content"])})
    if "tool_calls" in message:
        changed["tool_calls"] = _changed(message["tool_calls"], change)
    return changed


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [_changed(item, change) for item in value]
    return {key: _changed(item, change) for key, item in value.items()} if isinstance(value, dict) else value
