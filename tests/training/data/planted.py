"""Generated rows with known faults: copies, near copies, leaks and personal data.

Texts are sentences of made-up words, so that two of them are alike by chance about as often as in real data:
many share an opening. What only looks like personal data is planted as well, and must stay.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from stdnum import luhn

from lora_compose.training.data.messages import Row

OPENINGS = ("Please explain how", "What is the best way to", "Write a short note about", "Tell me why", "")
SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]


@dataclass
class Planted:
    """Rows and their known faults."""

    rows: list[Row] = field(default_factory=list)
    exact: set[int] = field(default_factory=set)
    near: set[int] = field(default_factory=set)
    leaks: set[int] = field(default_factory=set)
    evaluation: list[Row] = field(default_factory=list)
    items: dict[str, int] = field(default_factory=dict)
    """Planted personal data, by kind."""


def word(rng: random.Random) -> str:
    return "".join(rng.choices(SYLLABLES, k=rng.randint(1, 4)))


def sentence(rng: random.Random, length: int) -> str:
    return " ".join(word(rng) for _ in range(length))


def row(rng: random.Random) -> Row:
    asked = f"{rng.choice(OPENINGS)} {sentence(rng, rng.randint(4, 14))}?"
    return made(asked.strip(), sentence(rng, rng.randint(3, 60)).capitalize() + ".")


def made(asked: str, answer: str) -> Row:
    return {
        "prompt": [{"role": "user", "content": asked}],
        "completion": [{"role": "assistant", "content": answer}],
    }


def texts(of: Row) -> tuple[str, str]:
    return of["prompt"][0]["content"], of["completion"][0]["content"]


def copied(of: Row, rng: random.Random) -> Row:
    """The same text with different case and space."""
    asked, answer = texts(of)
    return rng.choice([
        made(asked.upper(), answer),
        made(asked + "  ", answer),
        made(asked, answer.replace(" ", "  ", 1)),
    ])


def edited(text: str, rng: random.Random, share: float = 0.04) -> str:
    """`text` with one word in 25 exchanged or removed, at least one."""
    words = text.split()
    for _ in range(max(1, round(len(words) * share))):
        at = rng.randrange(len(words))
        words[at : at + 1] = (
            rng.choice([[word(rng)], [], [words[at] + "s"]]) if len(words) > 12 else [words[at] + "s"]
        )
    return " ".join(words)


def planted(seed: int, count: int = 1500, each: int = 100) -> Planted:
    """`count` rows without faults, then `each` rows of every fault except personal data, shuffled."""
    rng = random.Random(seed)
    found = Planted([row(rng) for _ in range(count)])
    originals = rng.sample(range(count), 3 * each)
    for i in originals[:each]:
        found.exact.add(len(found.rows))
        found.rows.append(copied(found.rows[i], rng))
    long = [i for i in range(count) if len(" ".join(texts(found.rows[i])).split()) > 30]
    for i in rng.sample(long, each):
        asked, answer = texts(found.rows[i])
        found.near.add(len(found.rows))
        found.rows.append(made(asked, edited(answer, rng)))
    for i in originals[each:]:
        asked, answer = texts(found.rows[i])
        found.leaks.add(i)
        found.evaluation.append(made(asked if i % 2 else asked.upper() + " ", answer))
    found.evaluation += [row(rng) for _ in range(each)]
    return found


def digits(rng: random.Random, count: int) -> str:
    return "".join(rng.choices("0123456789", k=count))


def card(rng: random.Random) -> str:
    number = rng.choice(["4", "51", "55"]) + digits(rng, 14)
    number = number[:15] + str(luhn.calc_check_digit(number[:15]))
    return rng.choice([number, " ".join(number[i : i + 4] for i in range(0, 16, 4))])


def not_a_card(rng: random.Random) -> str:
    number = card(rng)
    return number[:-1] + str((int(number[-1]) + rng.randint(1, 9)) % 10)


def rrn(rng: random.Random) -> str:
    day = f"{rng.randint(60, 99)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}"
    born = f"{day}{rng.randint(1, 2)}{rng.randint(0, 95):02}{digits(rng, 3)}"  # places have numbers to 95
    check = sum(w * int(d) for w, d in zip((2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5), born, strict=True))
    return f"{born[:6]}-{born[6:]}{(11 - check % 11) % 10}"


def iban(rng: random.Random) -> str:
    from stdnum import iban as checked

    account = digits(rng, 18)
    return f"DE{checked.calc_check_digits('DE00' + account)}{account}"


def ssn(rng: random.Random) -> str:
    return f"{rng.randint(100, 665):03}-{rng.randint(1, 99):02}-{rng.randint(1, 9999):04}"


def phone(rng: random.Random) -> str:
    return rng.choice([
        f"+1 212-{rng.randint(200, 999)}-{digits(rng, 4)}",
        f"010-{rng.randint(2000, 9999)}-{digits(rng, 4)}",
        f"+44 20 7946 {digits(rng, 4)}",
        f"(415) {rng.randint(200, 999)}-{digits(rng, 4)}",
    ])


REAL: dict[str, Callable[[random.Random], str]] = {
    "EMAIL": lambda rng: (
        f"{word(rng)}.{word(rng)}{rng.randint(1, 99)}@{word(rng)}.{rng.choice(['com', 'co.kr', 'org'])}"
    ),
    "CARD": card,
    "RRN": rrn,
    "IBAN": iban,
    "SSN": ssn,
    "PHONE": phone,
    "IP": lambda rng: rng.choice([
        f"{rng.choice((31, 81, 93, 185, 212))}." + ".".join(str(rng.randint(32, 254)) for _ in range(3)),
        f"2a00:1450::{rng.randint(1, 9999):x}:{rng.randint(1, 9999):x}",
    ]),
}
LOOK_ALIKES: tuple[Callable[[random.Random], str], ...] = (
    not_a_card,
    lambda rng: f"v{rng.randint(1, 9)}.{rng.randint(0, 20)}.{rng.randint(0, 20)}.{rng.randint(0, 20)}",
    lambda rng: f"order {digits(rng, 8)}-{digits(rng, 6)}",
    lambda rng: f"20{digits(rng, 2)}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}",
    lambda rng: f"{rng.randint(10, 23)}:{rng.randint(10, 59)}:{rng.randint(10, 59)}",
    lambda rng: f"{rng.randint(1, 999)},{digits(rng, 3)},{digits(rng, 3)}",
    lambda rng: f"@{word(rng)} and {word(rng)}@{word(rng)}",
    lambda rng: f"3.{digits(rng, 12)}",
    lambda rng: f"{rng.randint(300, 999)}.{rng.randint(300, 999)}.1.1",
    lambda rng: f"000-{digits(rng, 2)}-{digits(rng, 4)}",
    lambda rng: f"part {digits(rng, 3)}-{digits(rng, 5)}-{digits(rng, 2)}",
)


def personal(seed: int, each: int = 60) -> list[tuple[str, str | None, str]]:
    """Texts with one item of personal data, its kind (None: only a look-alike) and the item."""
    rng = random.Random(seed)
    cases = [(kind, make(rng)) for kind, make in REAL.items() for _ in range(each)]
    alike = [(None, make(rng)) for make in LOOK_ALIKES for _ in range(each)]
    found = []
    for kind, item in [*cases, *alike]:
        before, after = sentence(rng, rng.randint(0, 5)), sentence(rng, rng.randint(0, 5))
        found.append((f"{before} {item}{rng.choice(['', '.', ','])} {after}".strip(), kind, item))
    rng.shuffle(found)
    return found
