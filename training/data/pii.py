"""Personal data in texts: found by form, believed only where it is valid, and masked by numbered tags.

A form alone is not enough: order numbers look like cards, versions like addresses, dates like numbers of
people. Check digits are python-stdnum's business and telephone numbers phonenumbers'.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

REGIONS: Final = ("US", "GB", "KR")
"""Where telephone numbers without a country code may be from."""


@dataclass(frozen=True)
class PiiMatch:
    """`text[start:end]` is one item of a kind."""

    kind: str
    start: int
    end: int
    value: str


@dataclass(frozen=True)
class Detector:
    """A kind of personal data: its form, and whether a match of it is real."""

    kind: str
    pattern: re.Pattern[str]
    is_valid: Callable[[str], bool]


def _stdnum(module: str) -> Callable[[str], bool]:
    def is_valid(text: str) -> bool:
        from importlib import import_module

        return bool(import_module(f"stdnum.{module}").is_valid(text))

    return is_valid


def _is_card(text: str) -> bool:
    """Luhn's check digit, and a network's prefix and length."""
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
    # Four numbers after "v" or "version" are a version.
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
    """All items, none within another; where two overlap the one earlier in the table wins."""
    found: list[PiiMatch] = []
    for each in (*_by_form(text), *_telephones(text, regions)):
        if all(each.end <= other.start or each.start >= other.end for other in found):
            found.append(each)
    return sorted(found, key=lambda each: each.start)


def _by_form(text: str) -> Iterator[PiiMatch]:
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
    """Tags of one data set: the same value has the same tag wherever it is."""

    regions: Sequence[str] = REGIONS
    counts: "Counter[str]" = field(default_factory=Counter)
    """Items masked, by kind."""
    _tags: dict[tuple[str, str], str] = field(default_factory=dict)

    def mask(self, text: str) -> str:
        """`text` with `<EMAIL_1>` and so on in place of what was found."""
        for each in reversed(found := find(text, self.regions)):
            text = text[: each.start] + self._tag(each) + text[each.end :]
        self.counts.update(each.kind for each in found)
        return text

    def _tag(self, found: PiiMatch) -> str:
        key = found.kind, re.sub(r"[\s-]", "", found.value).casefold()
        number = sum(kind == found.kind for kind, _ in self._tags) + 1
        return self._tags.setdefault(key, f"<{found.kind}_{number}>")
