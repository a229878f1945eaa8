"""Finds telephone numbers with Google's libphonenumber, and leaves out order numbers, sums and code.

The library decides whether digits can be a number of one of the regions, grouped as people there group it.
What is written around the digits decides whether they are one: `tel` or `order` before them, and digits or
letters that touch them.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Final

Span = tuple[int, int]

MAY_HOLD_ONE: Final = re.compile(r"\d[\d ()./-]{4,}\d", re.ASCII)
"""A cheap test. Without such a sequence, a text has no number."""
CALLING: Final = re.compile(
    r"(?:tel\b|tel[.:]|tél|tlf|phone|call|mobil|cell|fax|whatsapp|text me|\bsms\b|\bring\b|number is|telefon"
    r"|handy|\bruf|festnetz|numéro|appel|portable|joignable|móvil|llám|llame|telé|avisa|contact|kontakt"
    r"|전화|번호는|연락|문자|휴대폰|핸드폰|電話|携帯|手机|手機|电话)",
    re.IGNORECASE,
)
"""What is written before a number that people call."""
COUNTING: Final = re.compile(
    r"(?:order|booking|invoice|tracking|reference|\bref\b|\bcase\b|ticket|serial|parcel|account|\bisbn|\bissn|\bsku\b"
    r"|\bpart\b|article|customer|\bpo-|\bid\b|_id|_no\b|\bno\.|#|bestell|auftrag|rechnung|sendung|kunden"
    r"|akten|vorgang|konto|artikel|charge|serien|commande|facture|suivi|dossier|client|compte|n°|pedido|factura"
    r"|seguimiento|expediente|cliente|referencia|cuenta|n\.º|주문|송장|운송장|접수|계좌|고객|예약|注文|請求|追跡|受付|口座|予約"
    r"|订单|账号|\bext\b|\broom\b)",
    re.IGNORECASE,
)
"""What is written before other numbers."""
BEFORE: Final = 30
"""Characters before a number in which such words count."""
TOUCHED: Final = re.compile(r"(?:[A-Za-z0-9_]|\d[-./ ]|[A-Za-z]-|[A-Za-z_$(]\()$", re.ASCII)
"""Before digits that are a part of something longer, or an argument."""
TOUCHING: Final = re.compile(r"[A-Za-z0-9_]|[-./:]\d|-[A-Za-z]|\s?\d{2}", re.ASCII)
COUNT: Final = re.compile(r"[1-9]\d{0,2}(?: \d{3})+")
"""Digits in groups of three, as in 612 345 678, may be a count."""
OTHER: Final = re.compile(r"\d+[.,]\d+|(?:\d\d[./-]){2}\d{4}\b.*|\d{4}[./-]\d\d[./-]\d\d\b.*", re.ASCII)
"""A decimal number, or a date with what follows it."""
LONGEST: Final = 11
"""Digits of a national number, with its leading zero."""
SHORTEST: Final = 9
"""Digits of a number without an area code are fewer, and other numbers have the same form."""


def telephones(text: str, regions: Sequence[str]) -> Iterator[Span]:
    """Start and end of each telephone number in `text`."""
    if not MAY_HOLD_ONE.search(text):
        return
    from phonenumbers import Leniency, PhoneNumberMatcher

    for region in regions:
        for match in PhoneNumberMatcher(text, region, leniency=Leniency.STRICT_GROUPING):
            if _is_written_to_call(text, match.start, match.raw_string):
                yield match.start, match.end


def _is_written_to_call(text: str, start: int, number: str) -> bool:
    before, after = text[max(0, start - BEFORE) : start], text[start + len(number) :]
    opened = before + number[: number.startswith("(")]
    if " - " in number or TOUCHED.search(opened) or TOUCHING.match(after) or OTHER.fullmatch(number):
        return False
    if number.startswith("+"):
        return True
    line = before.rpartition("\n")[2]
    calling, counting = _last(CALLING, line), _last(COUNTING, line)
    if max(calling, counting) >= 0:
        return calling > counting
    if number.isdigit():
        return number.startswith("0") and len(number) <= LONGEST and not before.rstrip().endswith("=")
    return COUNT.fullmatch(number) is None and sum(map(str.isdigit, number)) >= SHORTEST


def _last(words: re.Pattern[str], text: str) -> int:
    return max((match.start() for match in words.finditer(text)), default=-1)
