"""Values for the sentences of `carriers.py`: personal data with right check digits, and look-alikes."""

import random
import uuid
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from typing import Final

NAMES: Final = [
    "mila",
    "jonas",
    "pierre",
    "carla",
    "yuna",
    "haru",
    "olga",
    "sven",
    "nadia",
    "teo",
    "ines",
    "bram",
    "lena",
    "kofi",
    "rosa",
    "ahmed",
]
FIRMS: Final = [
    "nordlicht",
    "bergwerk",
    "lumiere",
    "camino",
    "hanbit",
    "sakura",
    "millstone",
    "riverside",
    "oldtown",
    "greenfield",
]
TOPS: Final[dict[str, tuple[str, ...]]] = {
    "en": ("com", "co.uk", "org", "io", "us"),
    "de": ("de", "at", "com", "online"),
    "fr": ("fr", "be", "org"),
    "es": ("es", "com.mx", "ar", "cat"),
    "ko": ("co.kr", "kr", "com", "net"),
    "ja": ("co.jp", "ne.jp", "jp"),
    "code": ("com", "dev", "io", "net"),
}
PHONES: Final[dict[str, tuple[str, ...]]] = {
    "en": (
        "(312) 5##-####",
        "646-5##-####",
        "+1 (503) 4##-####",
        "020 7946 0###",
        "07811 200###",
        "+44 7811 200###",
        "212.5##.####",
    ),
    "de": (
        "030 23125###",
        "+49 151 23125###",
        "0171 39200##",
        "+49 (0)89 99998###",
        "040/66969###",
        "0221-4710###",
    ),
    "fr": ("06 52 4# ## ##", "+33 6 52 4# ## ##", "01.99.00.##.##", "0536490###", "+33 (0)1 99 00 ## ##"),
    "es": ("612 34# ###", "+34 612 34# ###", "91 234 5# ##", "+34 912 34# ###", "93 412 ## ##"),
    "ko": (
        "010-8###-2###",
        "02-3##6-1###",
        "+82 10-4###-3###",
        "010 7### 5###",
        "0109###4###",
        "031-2##-4###",
    ),
    "ja": ("090-1###-2###", "03-3###-4###", "+81 90-5###-6###", "06-6###-1###", "0120-4##-1##"),
    "code": ("+1 415 5##-####", "(206) 5##-####", "+44 20 7946 0###", "+49 30 23125###"),
}


def filled(rng: random.Random, pattern: str) -> str:
    """The pattern with a digit for each `#`. North American exchanges do not begin with 0 or 1."""
    return "".join(rng.choice("23456789") if sign == "#" else sign for sign in pattern)


def digits(rng: random.Random, count: int) -> str:
    return rng.choice("123456789") + "".join(rng.choices("0123456789", k=count - 1))


def mail(rng: random.Random, language: str) -> str:
    name, firm = rng.choice(NAMES), rng.choice(FIRMS)
    before = rng.choice([
        name,
        f"{name}.{rng.choice(NAMES)}",
        f"{name[0]}{rng.choice(NAMES)}{rng.randint(1, 99)}",
        f"{name}+news",
        f"{name}_{rng.randint(1, 9)}",
    ])
    return (
        f"{before}@{rng.choice(['', 'mail.'])}{firm}{rng.choice(['', '-group'])}.{rng.choice(TOPS[language])}"
    )


def phone(rng: random.Random, language: str) -> str:
    return filled(rng, rng.choice(PHONES[language]))


def card(rng: random.Random, _: str) -> str:
    start, length = rng.choice([("4", 16), ("53", 16), ("34", 15), ("6011", 16), ("2221", 16)])
    body = start + digits(rng, length - 1 - len(start))
    number = f"{body}{import_module('stdnum.luhn').calc_check_digit(body)}"
    if length == 15:
        return rng.choice([number, f"{number[:4]} {number[4:10]} {number[10:]}"])
    parts = [number[i : i + 4] for i in range(0, 16, 4)]
    return rng.choice([number, " ".join(parts), "-".join(parts)])


def iban(rng: random.Random, language: str) -> str:
    checked = import_module("stdnum.iban")
    country, length = {"de": ("DE", 18), "fr": ("FR", 23), "es": ("ES", 20)}.get(language, ("NL", 0))
    while True:
        body = digits(rng, length) if length else f"{rng.choice(('INGB', 'RABO'))}{digits(rng, 10)}"
        number = f"{country}{checked.calc_check_digits(country + '00' + body)}{body}"
        if checked.is_valid(number):
            break
    spaced = " ".join(number[i : i + 4] for i in range(0, len(number), 4))
    return rng.choice([number, spaced])


def ssn(rng: random.Random, _: str) -> str:
    return f"{rng.randint(100, 660)}-{rng.randint(1, 99):02}-{rng.randint(1, 9999):04}"


def national(rng: random.Random, language: str) -> str:
    return {"de": _german, "fr": _french, "es": _spanish, "ko": _korean}[language](rng)


def _german(rng: random.Random) -> str:
    """A Steuer-ID: one digit twice among the first ten, and a check digit."""
    found = rng.sample("0123456789", 9)
    found.insert(rng.randrange(1, 9), found[0])
    if found[0] == "0":
        return _german(rng)
    body = "".join(found)
    number = f"{body}{import_module('stdnum.iso7064.mod_11_10').calc_check_digit(body)}"
    if not import_module("stdnum.de.idnr").is_valid(number):
        return _german(rng)
    return rng.choice([number, f"{number[:2]} {number[2:5]} {number[5:8]} {number[8:]}"])


def _french(rng: random.Random) -> str:
    born = f"{rng.choice('12')}{rng.randint(40, 99)}{rng.randint(1, 12):02}"
    body = f"{born}{rng.randint(1, 95):02}{rng.randint(1, 990):03}{rng.randint(1, 999):03}"
    number = f"{body}{97 - int(body) % 97:02}"
    cuts = (0, 1, 3, 5, 7, 10, 13, 15)
    spaced = " ".join(number[a:b] for a, b in pairwise(cuts))
    return rng.choice([number, spaced])


def _spanish(rng: random.Random) -> str:
    letters, number = "TRWAGMYFPDXBNJZSQVHLCKE", rng.randint(10_000_000, 79_999_999)
    if rng.random() < 0.3:
        short = rng.randint(1_000_000, 9_999_999)
        return f"X{short}{letters[short % 23]}"
    return rng.choice([f"{number}{letters[number % 23]}", f"{number}-{letters[number % 23]}"])


def _korean(rng: random.Random) -> str:
    born = f"{rng.randint(60, 99)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}"
    body = f"{born}{rng.randint(1, 2)}{rng.randint(0, 95):02}{rng.randint(0, 999):03}"
    check = sum(w * int(d) for w, d in zip((2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5), body, strict=True))
    return f"{body[:6]}-{body[6:]}{(11 - check % 11) % 10}"


def address(rng: random.Random, _: str) -> str:
    if rng.random() < 0.25:
        return f"2a01:e0a:{rng.randint(256, 4095):x}:{rng.randint(16, 4095):x}::{rng.randint(2, 255):x}"
    return f"{rng.choice((45, 62, 77, 91, 109, 146, 178, 188, 201, 213))}." + ".".join(
        str(rng.randint(2, 254)) for _ in range(3)
    )


REAL: Final[dict[str, Callable[[random.Random, str], str]]] = {
    "EMAIL": mail,
    "PHONE": phone,
    "CARD": card,
    "IBAN": iban,
    "SSN": ssn,
    "NATIONAL_ID": national,
    "IP": address,
}


def date(rng: random.Random) -> str:
    day, month, year = rng.randint(1, 28), rng.randint(1, 12), rng.randint(1950, 2029)
    return rng.choice([
        f"{year}-{month:02}-{day:02}",
        f"{day:02}.{month:02}.{year}",
        f"{day:02}/{month:02}/{year}",
    ])


def isbn(rng: random.Random) -> str:
    body = f"978{rng.randint(0, 9)}{digits(rng, 8)}"
    check = (10 - sum(int(d) * (3 if i % 2 else 1) for i, d in enumerate(body)) % 10) % 10
    return rng.choice([f"{body}{check}", f"978-{body[3]}-{body[4:7]}-{body[7:12]}-{check}"])


ALIKE: Final[dict[str, Callable[[random.Random], str]]] = {
    "order": lambda rng: rng.choice([
        f"{digits(rng, 3)}-{digits(rng, 7)}-{digits(rng, 7)}",
        f"{digits(rng, 4)}-{digits(rng, 4)}",
        f"{digits(rng, 3)}-{digits(rng, 3)}",
        f"{digits(rng, 2)}-{digits(rng, 5)}-{digits(rng, 3)}",
    ]),
    "long": lambda rng: digits(rng, rng.choice((8, 9, 10, 11, 12, 13))),
    "isbn": isbn,
    "section": lambda rng: ".".join(str(rng.randint(1, 30)) for _ in range(rng.choice((3, 4)))),
    "version": lambda rng: ".".join(str(rng.randint(0, 40)) for _ in range(rng.choice((3, 4)))),
    "date": date,
    "time": lambda rng: f"{rng.randint(8, 22)}:{rng.randint(0, 59):02}",
    "money": lambda rng: rng.choice([
        f"{rng.randint(1, 99)}.{digits(rng, 3)},{digits(rng, 2)}",
        f"{rng.randint(1, 99)},{digits(rng, 3)},{digits(rng, 3)}",
        f"{rng.randint(1, 99)} {digits(rng, 3)} {digits(rng, 3)}",
    ]),
    "decimal": lambda rng: f"{rng.randint(0, 9)}.{digits(rng, 10)}",
    "tracking": lambda rng: rng.choice([
        f"1Z{uuid.UUID(int=rng.getrandbits(128)).hex[:6].upper()}{digits(rng, 10)}",
        f"{digits(rng, 4)} {digits(rng, 4)} {digits(rng, 4)}",
        f"JJD{digits(rng, 15)}",
    ]),
    "score": lambda rng: (
        f"{rng.randint(10, 25)}-{rng.randint(10, 25)}, {rng.randint(10, 25)}-{rng.randint(10, 25)}"
    ),
    "years": lambda rng: f"{rng.randint(1800, 1899)}-{rng.randint(1900, 1999)}",
    "people": lambda rng: f"{rng.randint(1, 9)},{digits(rng, 3)},{digits(rng, 3)}",
    "gps": lambda rng: f"{rng.randint(10, 80)}.{digits(rng, 6)}, {rng.randint(10, 80)}.{digits(rng, 6)}",
    "handle": lambda rng: rng.choice(NAMES),
    "uuid": lambda rng: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
    "sha": lambda rng: f"{rng.getrandbits(160):040x}",
    "sha256": lambda rng: f"{rng.getrandbits(256):064x}",
    "private": lambda rng: rng.choice([
        f"10.{rng.randint(0, 254)}.{rng.randint(0, 254)}.{rng.randint(1, 254)}",
        f"192.168.{rng.randint(0, 254)}.{rng.randint(1, 254)}",
        f"172.{rng.randint(16, 31)}.0.{rng.randint(1, 254)}",
    ]),
    "triple": lambda rng: f"{digits(rng, 3)}, {digits(rng, 3)}, {digits(rng, 4)}",
    "epoch": lambda rng: f"1{digits(rng, 9)}",
    "mac": lambda rng: ":".join(f"{rng.getrandbits(8):02x}" for _ in range(6)),
}
