"""Rows of one template are different rows: what varies between them is compared."""

import random

import pytest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.data.curation import Options, curate
from lora_compose.training.data.messages import Message, Row
from lora_compose.training.data.near_duplicates import Copies, find_copies
from lora_compose.training.data.rows import as_rows
from tests.training.data.near_copies import measured as near_copies
from tests.training.data.near_copies.measured import count
from tests.training.data.planted import edited, made, sentence

TRIAGE = (
    "You are a support triage assistant. Read the customer's message below and classify it into exactly one "
    "of the following categories: billing, shipping, returns, technical, other. Reply with the category name "
    "only, in lower case, with no punctuation and no explanation. Message follows."
)
THINGS = ["card", "parcel", "refund", "router", "login", "invoice", "courier", "label", "screen", "battery"]
FAULTS = ("is late", "is broken", "was charged twice", "does not start", "arrived open", "got lost")
KINDS = ["billing", "shipping", "returns", "technical", "other"]


def triage() -> list[Row]:
    cases = [(thing, fault) for thing in THINGS for fault in FAULTS]
    return [made(f"{TRIAGE}\n\nMy {a} {b}.", KINDS[i % 5]) for i, (a, b) in enumerate(cases)]


def sums() -> list[Row]:
    ask = "Compute the sum of the two numbers and give only the result:"
    return [made(f"{ask} {a} plus {b}.", str(a + b)) for a in range(100, 110) for b in range(200, 210)]


def names() -> list[Row]:
    ask = "Is this first name more common for girls or for boys in this country? Answer in one word."
    return [
        made(f"{ask} Name: {name}", "girls")
        for name in ["Anna", "Hanna", "Johanna", "Joanna", "Susanna", "Marianna"]
    ]


def korean() -> list[Row]:
    ask = "다음 고객의 문의를 읽고 배송, 결제, 반품, 기술, 기타 가운데 하나로 분류하세요. 문의:"
    things = ("카드가", "택배가", "환불이", "공유기가", "화면이", "배터리가")
    return [
        made(f"{ask} 제 {thing} {fault}.", "기타") for thing in things for fault in ("늦었어요", "고장났어요")
    ]


def many_templates() -> list[Row]:
    rng = random.Random(1)
    asks = [f"{sentence(rng, 30)}:" for _ in range(10)]
    return [made(f"{ask} {sentence(rng, 3)}", sentence(rng, 2)) for ask in asks for _ in range(10)]


def system_prompts() -> list[Row]:
    rng = random.Random(2)
    system: Message = {"role": "system", "content": TRIAGE}
    rows = [made(sentence(rng, 4), sentence(rng, 2)) for _ in range(40)]
    return [row | {"prompt": [system, *row["prompt"]]} for row in rows]


SETS = {make.__name__: make() for make in (triage, sums, names, korean, many_templates, system_prompts)}


@pytest.mark.parametrize("rows", SETS.values(), ids=SETS)
def test_rows_of_a_template_all_stay(rows: list[Row]) -> None:
    assert len(curate(as_rows("rows", "instruction", rows), (), Options()).rows) == len(rows)


@pytest.mark.parametrize("rows", SETS.values(), ids=SETS)
def test_rows_of_a_template_are_not_leaks_of_each_other(rows: list[Row]) -> None:
    held_out = as_rows("held out", "instruction", rows[::5])
    others = [row for i, row in enumerate(rows) if i % 5]
    curated = curate(as_rows("rows", "instruction", others), [held_out], Options(drop_leaks=True))
    assert len(curated.rows) == len(others)
    with pytest.raises(LoraComposeError, match="same questions"):
        curate(as_rows("rows", "instruction", rows), [held_out], Options())


def test_near_copies_among_rows_of_a_template_are_found() -> None:
    rng = random.Random(3)
    rows = [made(f"{TRIAGE} {sentence(rng, 4)}", sentence(rng, 50)) for _ in range(60)]
    copies = [
        made(row["prompt"][0]["content"], edited(row["completion"][0]["content"], rng)) for row in rows[:20]
    ]
    curated = curate(as_rows("rows", "instruction", rows + copies), (), Options())
    assert curated.rows == rows


def test_problems_that_differ_in_their_numbers_all_stay() -> None:
    story = "Tom has {} apples in his basket. His sister gives him {} more. How many apples has he now?"
    rows = [made(story.format(a, 2 * a), str(3 * a)) for a in (3, 4)]
    assert len(curate(as_rows("rows", "instruction", rows), (), Options()).rows) == 2


def test_rows_with_different_system_messages_are_different_rows() -> None:
    row = made("Explain in a few sentences how a bicycle stays upright while it moves.", "By steering. " * 5)
    rows: list[Row] = [
        row | {"prompt": [{"role": "system", "content": system}, *row["prompt"]]}
        for system in ("You are a pirate.", "You are formal.")
    ]
    assert len(curate(as_rows("rows", "instruction", rows), (), Options()).rows) == 2


def test_a_step_that_would_drop_most_rows_stops_and_shows_examples() -> None:
    rows = [made(f"Please say {'very ' * 10}good{' ' * i}", f"good {'!' * (i % 3)}") for i in range(40)]
    with pytest.raises(LoraComposeError, match="--max-dropped 1") as caught:
        curate(as_rows("rows", "instruction", rows), (), Options())
    assert caught.value.code == "too_many_dropped"
    assert len(curate(as_rows("rows", "instruction", rows), (), Options(max_dropped=1)).rows) < 20


def test_rows_of_common_sentences_are_compared_whole() -> None:
    """Each sentence is in many rows, but two rows that share all sentences are copies."""
    rng = random.Random(5)
    known = [sentence(rng, 8).capitalize() + "." for _ in range(40)]
    rows = [made(" ".join(rng.sample(known, 3)), " ".join(rng.sample(known, 3))) for _ in range(100)]
    copies = [
        made("Hi there, " + a["prompt"][0]["content"], a["completion"][0]["content"]) for a in rows[:20]
    ]
    curated = curate(as_rows("rows", "instruction", [*rows, *copies]), (), Options())
    assert curated.rows == rows


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Visitors may take photographs in the hall.", "Visitors may not take photographs in the hall."),
        ("Der Hof ist im Winter für Besucher offen.", "Der Hof ist im Winter nie für Besucher offen."),
        ("Le musée ferme pendant les travaux du toit.", "Le musée ne ferme pas pendant les travaux du toit."),
        (
            "while (left < right) { step(left, right, key); }",
            "while (left > right) { step(left, right, key); }",
        ),
        (
            "이 문은 밤에도 열려 있습니다. 들어와도 됩니다.",
            "이 문은 밤에도 열려 있지 않습니다. 들어와도 됩니다.",
        ),
    ],
)
def test_a_negation_or_an_operator_makes_another_row(one: str, other: str) -> None:
    answer = "Noted, and passed on to all people in the building."
    rows = [made(one, answer), made(other, answer)]
    assert len(curate(as_rows("rows", "instruction", rows), (), Options()).rows) == 2


def test_near_copies_in_code_and_five_languages_are_found() -> None:
    """Rows of parts that repeat. One word that means the opposite in a long text is not seen."""
    by_edit = count(near_copies.made(1), lambda row: row.edit)
    assert sum(own.found for own in by_edit.values()) / sum(own.copies for own in by_edit.values()) > 0.75
    assert by_edit[""].false <= 1
    assert by_edit["other number"].false == 0


def test_a_second_search_finds_nothing() -> None:
    texts = [(row.text, "") for row in near_copies.made(2)]
    copies = find_copies(texts)
    left = [text for i, text in enumerate(texts) if i not in copies.exact and i not in copies.near]
    assert find_copies(left) == Copies({}, {})
