"""The kinds of personal data that have a pattern, and the checks of a match.

A pattern alone is not enough: order numbers look like card numbers, versions and sections like IP addresses,
matrix products like e-mail addresses, and dates like personal numbers. python-stdnum validates check digits,
and the text around a match can say that it is something else. Letters and digits are ASCII in the patterns,
so that a value may touch a Korean or Japanese word.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Final

IsValid = Callable[[re.Match[str]], bool]


@dataclass(frozen=True)
class Detector:
    """A kind of personal data: its pattern, and the check of a match."""

    kind: str
    pattern: re.Pattern[str]
    is_valid: IsValid


def _stdnum(module: str, named: re.Pattern[str] | None = None) -> IsValid:
    """The check of a module of python-stdnum. With `named`, the text before must also name the kind."""

    def is_valid(match: re.Match[str]) -> bool:
        if named is not None and not named.search(match.string[max(0, match.start() - 40) : match.start()]):
            return False
        return bool(import_module(f"stdnum.{module}").is_valid(match[0].replace(".", "")))

    return is_valid


def _is_card(match: re.Match[str]) -> bool:
    """Whether the Luhn check digit is right, and prefix and length are those of a card network."""
    from stdnum import luhn

    digits = re.sub(r"\D", "", match[0])
    networks = r"4\d{15}(\d{3})?|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|6(?:011|5\d\d)\d{12}|35\d{14}"
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
    r"(?:versions?|versión|release|build|firmware|driver|kernel|sections?|sect?\.|§+|clause|paragraph|chapter"
    r"|chapitre|figure|fig\.|table|step|article|artículo|apartado|capítulo|edición|alinéa|appendix|oid"
    r"|abschnitt|kapitel|absatz|ziffer|version:"
    r"|버전|릴리스|제|제 |バージョン|リリース|第|版本|[=~<>!]=|\(?[<>]=? ?|[a-z]/|[a-z]:|[a-z]-"
    r"|\bv)[\s\"':=]*$",
    re.IGNORECASE,
)
"""What is written before a version or the number of a section."""
ADDRESSED: Final = re.compile(
    r"(?:\bfrom|\bip\b|\bipv4|addr(?:ess)?|adresse|dirección|\bhost|server|peer|client|login|remote|\bdeny|\ballow"
    r"|\bping|whois|von|depuis|desde|접속|주소|接続)[\s\"':：=(\[,]*$",
    re.IGNORECASE,
)
"""What is written before an address."""
LARGEST_PART: Final = 99
"""Four numbers up to this one are more often a version or a section than an address. All four parts of an
address by chance are so small in 2 % of the cases.
"""
FOLLOWED: Final = re.compile(r":\d{2,5}\b| - - \[|/\d\d?\b|[에から]")
"""What is written after an address, and not after a version: a port, a log, a network."""


def _is_address(match: re.Match[str]) -> bool:
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return False
    if not address.is_global:
        return False
    if address.version == 6:
        return True
    before = match.string[max(0, match.start() - 24) : match.start()]
    if ADDRESSED.search(before):
        return True
    if NUMBERED.search(before):
        return False
    is_small = all(int(part) <= LARGEST_PART for part in match[0].split("."))
    return not is_small or FOLLOWED.match(match.string, match.end()) is not None


TAX: Final = re.compile(
    r"(?:steuer|\bid-?nr|identifikationsn|\btin\b|tax id)[\w\s.:'\"-]{0,20}$", re.IGNORECASE
)
"""What is written before a German tax number, whose check digit is right for one number in ten."""


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(text, re.ASCII)


DETECTORS: Final = (
    Detector(
        "EMAIL",
        _pattern(
            r"(?<![\w.%+-])[A-Za-z0-9À-ɏ][A-Za-z0-9À-ɏ._%+-]*@"
            r"[A-Za-z0-9À-ɏ-]+(?:\.[A-Za-z0-9À-ɏ-]+)*\.[A-Za-z]{2,}\b"
        ),
        _is_mail,
    ),
    Detector(
        "IBAN", _pattern(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), _stdnum("iban")
    ),
    Detector(
        "NIR",
        _pattern(r"(?<![\w.-])[12] ?\d{2} ?\d{2} ?(?:\d{2}|2[AB]) ?\d{3} ?\d{3} ?\d{2}(?![\w-])"),
        _stdnum("fr.nir"),
    ),
    Detector("CARD", _pattern(r"(?<![\w.-])\d(?:[ -]?\d){12,18}(?![\w-])"), _is_card),
    Detector("RIC", _pattern(r"(?<![\w.-])\d{17}[\dXx](?![\w-])"), _stdnum("cn.ric")),
    Detector("RRN", _pattern(r"(?<![\w-])\d{6}-?[1-8]\d{6}(?![\w-])"), _stdnum("kr.rrn")),
    Detector("SSN", _pattern(r"(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])"), _stdnum("us.ssn")),
    Detector("DNI", _pattern(r"(?<![\w.-])\d{2}\.?\d{3}\.?\d{3}-?[A-Z](?![\w-])"), _stdnum("es.dni")),
    Detector("NIE", _pattern(r"(?<![\w.-])[XYZ]-?\d{7}-?[A-Z](?![\w-])"), _stdnum("es.nie")),
    Detector(
        "CODICEFISCALE",
        _pattern(r"(?<![\w-])[A-Z]{6}\d{2}[A-EHLMPRST]\d{2}[A-Z]\d{3}[A-Z](?![\w-])"),
        _stdnum("it.codicefiscale"),
    ),
    Detector("CPF", _pattern(r"(?<![\w.-])\d{3}\.\d{3}\.\d{3}-\d{2}(?![\w-])"), _stdnum("br.cpf")),
    Detector("IDNR", _pattern(r"(?<![\w.-])\d{2} ?\d{3} ?\d{3} ?\d{3}(?![\w-])"), _stdnum("de.idnr", TAX)),
    Detector("IP", _pattern(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w]|\.\d|-[A-Za-z])"), _is_address),
    Detector(
        "IP",
        _pattern(
            r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:|:(?=:)){1,7}(?::?[0-9A-Fa-f]{1,4})?(?::[0-9A-Fa-f]{1,4})*(?![\w:])"
        ),
        _is_address,
    ),
)
