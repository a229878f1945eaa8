"""Find and mask personal data in texts. A match of a pattern counts only if it is also valid.

A pattern alone is not enough: order numbers look like card numbers, versions and sections like IP addresses,
matrix products like e-mail addresses, and dates like personal numbers. python-stdnum validates check digits,
phonenumbers finds telephone numbers, and the text before a match can say that it is something else. Addresses
that belong to no person are left alone: loopback, private, reserved and documentation addresses, and the
domains of RFC 2606. Names of people are not found.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from lora_compose.training.data.messages import Message, Row

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
    is_valid: Callable[[re.Match[str]], bool]


def _stdnum(module: str) -> Callable[[re.Match[str]], bool]:
    def is_valid(match: re.Match[str]) -> bool:
        from importlib import import_module

        return bool(import_module(f"stdnum.{module}").is_valid(match[0]))

    return is_valid


def _is_card(match: re.Match[str]) -> bool:
    """Whether the Luhn check digit is right, and prefix and length are those of a card network."""
    from stdnum import luhn

    digits = re.sub(r"\D", "", match[0])
    networks = r"4\d{12}(\d{3})?(\d{3})?|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|6(?:011|5\d\d)\d{12}|35\d{14}"
    return re.fullmatch(networks, digits) is not None and bool(luhn.is_valid(digits))


RESERVED_DOMAINS: Final = re.compile(
    r"(?:^|\.)(?:example(?:\.(?:com|net|org))?|test|invalid|localhost|localdomain)$"
)
"""Reserved domains (RFC 2606 and RFC 6761)."""
LONG_DOMAINS: Final = re.compile(
    r"com|org|net|edu|gov|mil|int|biz|pro|xyz|app|dev|tel|cat|top|bio|one|name|info|mobi|jobs|asia|arpa|aero|coop"
    r"|museum|travel|online|site|store|tech|cloud|live|world|email|agency|academy|company|digital|global|group"
    r"|health|house|london|berlin|paris|media|news|shop|solutions|space|studio|systems|team|today|website|wiki"
    r"|works?|zone|blog|club|design"
)
"""Top-level domains of more than two letters in wide use. Few attributes in code have such names."""


def _is_mail(match: re.Match[str]) -> bool:
    """Whether the domain can exist, and the text is neither a matrix product nor an SSH remote."""
    domain = match[0].partition("@")[2].casefold()
    top, after = domain.rpartition(".")[2], match.string[match.end() : match.end() + 1]
    if RESERVED_DOMAINS.search(domain) or after == "(":
        return False
    is_remote = match[0].startswith("git@") and after == ":"
    return not is_remote and (len(top) == 2 or LONG_DOMAINS.fullmatch(top) is not None)


NUMBERED: Final = re.compile(
    r"(?:version|release|build|firmware|driver|kernel|section|sections|sect?\.|§+|clause|chapter|figure|fig\.|table"
    r"|step|article|appendix|oid|abschnitt|kapitel|version:|[=~<>!]=|[a-z]/|\bv)\s*$",
    re.IGNORECASE,
)
"""What is written before a version or the number of a section."""
LARGEST_PART: Final = 31
"""Four numbers up to this one are more often a section or a version than an address."""


def _is_address(match: re.Match[str]) -> bool:
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return False
    if not address.is_global:
        return False
    if address.version == 6:
        return True
    is_small = all(int(part) <= LARGEST_PART for part in match[0].split("."))
    return not is_small and NUMBERED.search(match.string[: match.start()][-20:]) is None


DETECTORS: Final = (
    Detector(
        "EMAIL",
        re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+-]*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}\b"),
        _is_mail,
    ),
    Detector(
        "IBAN",
        re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"),
        _stdnum("iban"),
    ),
    Detector("CARD", re.compile(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])"), _is_card),
    Detector("RRN", re.compile(r"(?<![\w-])\d{6}-?[1-8]\d{6}(?![\w-])"), _stdnum("kr.rrn")),
    Detector("SSN", re.compile(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"), _stdnum("us.ssn")),
    Detector("IP", re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d)"), _is_address),
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
            if detector.is_valid(match):
                yield PiiMatch(detector.kind, match.start(), match.end(), match[0])


CALLING: Final = re.compile(
    r"(?:tel|phone|call|mobile|cell|fax|whatsapp|text me|ring|number is|telefon|handy|ruf|numéro|appel"
    r"|teléfono|llám|móvil|전화|번호|연락|문자)[^\n]{0,20}$",
    re.IGNORECASE,
)
"""What is written before a telephone number of digits alone."""


def _telephones(text: str, regions: Sequence[str]) -> Iterator[PiiMatch]:
    if sum(map(str.isdigit, text)) < 7:
        return
    from phonenumbers import Leniency, PhoneNumberMatcher

    for region in regions:
        for match in PhoneNumberMatcher(text, region, leniency=Leniency.STRICT_GROUPING):
            if _is_written_to_call(text, match.start, match.raw_string):
                yield PiiMatch("PHONE", match.start, match.end, match.raw_string)


def _is_written_to_call(text: str, start: int, number: str) -> bool:
    """Whether the number is written as one that people call, and not as an integer or a sum."""
    if " - " in number or text[:start].endswith("("):
        return False
    return not number.isdigit() or number.startswith("0") or CALLING.search(text[:start]) is not None


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
        others = [m["content"] for column in row.values() for m in column if m["role"] != "assistant"]
        asked = {self._key(match) for text in others for match in find(text, self.regions)}

        def masked(message: Message) -> Message:
            found = find(message["content"], self.regions)
            if message["role"] == "assistant" and not answers:
                kept = [match for match in found if self._key(match) not in asked]
                self.unmasked.update(match.kind for match in kept)
                found = [match for match in found if self._key(match) in asked]
            return {"role": message["role"], "content": self._replaced(message["content"], found)}

        return {column: [masked(message) for message in messages] for column, messages in row.items()}

    def _replaced(self, text: str, found: Sequence[PiiMatch]) -> str:
        for match in reversed(found):
            text = text[: match.start] + self._tag(match) + text[match.end :]
        self.counts.update(match.kind for match in found)
        return text

    @staticmethod
    def _key(match: PiiMatch) -> tuple[str, str]:
        return match.kind, re.sub(r"[\s-]", "", match.value).casefold()

    def _tag(self, match: PiiMatch) -> str:
        key = self._key(match)
        number = sum(kind == match.kind for kind, _ in self._tags) + 1
        return self._tags.setdefault(key, f"<{match.kind}_{number}>")
