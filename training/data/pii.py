"""Find and mask personal data in texts. A match of a pattern counts only if it is also valid.

A pattern alone is not enough: order numbers look like card numbers, versions like IP addresses, and dates
like personal numbers. python-stdnum validates check digits, and phonenumbers finds telephone numbers.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

REGIONS: Final = ("US", "GB", "KR")
"""Regions of telephone numbers without a country code."""


@dataclass(frozen=True)
class PiiMatch:
    """One item of personal data, at `text[start:end]`."""

    kind: str
    start: int
    end: int
    value: str


@dataclass(frozen=True)
class Detector:
    """A kind of personal data: its pattern, and the check of a match."""

    kind: str
    pattern: re.Pattern[str]
    is_valid: Callable[[str], bool]


def _stdnum(module: str) -> Callable[[str], bool]:
    def is_valid(text: str) -> bool:
        from importlib import import_module

        return bool(import_module(f"stdnum.{module}").is_valid(text))

    return is_valid


def _is_card(text: str) -> bool:
    """Whether the Luhn check digit is right, and prefix and length are those of a card network."""
    digits = re.sub(r"\D", "", text)
    networks = r"4\d{12}(\d{3})?(\d{3})?|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|6(?:011|5\d\d)\d{12}|35\d{14}"
    return re.fullmatch(networks, digits) is not None and _stdnum("luhn")(digits)


def _is_address(text: str) -> bool:
    try:
        return bool(ipaddress.ip_address(text))
    except ValueError:
        return False


DETECTORS: Final = (
    Detector(
        "EMAIL",
        re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+-]*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b"),
        bool,
    ),
    Detector(
        "IBAN",
        re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
        _stdnum("iban"),
    ),
    Detector("CARD", re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])"), _is_card),
    Detector("RRN", re.compile(r"(?<![\w-])\d{6}-?[1-8]\d{6}(?![\w-])"), _stdnum("kr.rrn")),
    Detector("SSN", re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"), _stdnum("us.ssn")),
    # Four numbers after "v" or "version" are a version, not an address.
    Detector(
        "IP",
        re.compile(
            r"(?<![\w.])(?<!version )(?<!release )(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)", re.IGNORECASE
        ),
        _is_address,
    ),
    Detector(
        "IP",
        re.compile(
            r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:|:(?=:)){1,7}(?::?[0-9A-Fa-f]{1,4})?(?::[0-9A-Fa-f]{1,4})*(?![\w:])"
        ),
        _is_address,
    ),
)


def find(text: str, regions: Sequence[str] = REGIONS) -> list[PiiMatch]:
    """All items, in the order of the text.

    If two overlap, the detector that comes first in the table wins.
    """
    found: list[PiiMatch] = []
    for match in (*_by_pattern(text), *_telephones(text, regions)):
        if all(match.end <= other.start or match.start >= other.end for other in found):
            found.append(match)
    return sorted(found, key=lambda match: match.start)


def _by_pattern(text: str) -> Iterator[PiiMatch]:
    for detector in DETECTORS:
        for match in detector.pattern.finditer(text):
            if detector.is_valid(match[0]):
                yield PiiMatch(detector.kind, match.start(), match.end(), match[0])


def _telephones(text: str, regions: Sequence[str]) -> Iterator[PiiMatch]:
    if sum(map(str.isdigit, text)) < 7:
        return
    from phonenumbers import Leniency, PhoneNumberMatcher

    for region in regions:
        for match in PhoneNumberMatcher(text, region, leniency=Leniency.STRICT_GROUPING):
            yield PiiMatch("PHONE", match.start, match.end, match.raw_string)


@dataclass
class Masker:
    """Masks the texts of one data set. Equal values get the same tag in all texts."""

    regions: Sequence[str] = REGIONS
    counts: "Counter[str]" = field(default_factory=Counter)
    """Items masked, by kind."""
    _tags: dict[tuple[str, str], str] = field(default_factory=dict)

    def mask(self, text: str) -> str:
        """`text` with a tag, such as `<EMAIL_1>`, in place of each item found."""
        for match in reversed(matches := find(text, self.regions)):
            text = text[: match.start] + self._tag(match) + text[match.end :]
        self.counts.update(match.kind for match in matches)
        return text

    def _tag(self, match: PiiMatch) -> str:
        key = match.kind, re.sub(r"[\s-]", "", match.value).casefold()
        number = sum(kind == match.kind for kind, _ in self._tags) + 1
        return self._tags.setdefault(key, f"<{match.kind}_{number}>")
