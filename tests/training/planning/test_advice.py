"""The advice says which cards fit, why others do not, and what would make it fit."""

import pytest

from lora_compose.training.planning.advice import advise, fits
from lora_compose.training.planning.devices import CARDS
from lora_compose.training.planning.memory import GIB, memory_of, per_card
from lora_compose.training.planning.models import read_shape
from lora_compose.training.planning.settings import PlanSettings


def test_a_card_has_less_than_the_size_it_is_sold_by_and_never_much_less() -> None:
    assert all(0.9 * card.sold_gb < card.usable < card.sold_gb for card in CARDS)
    assert [card.usable for card in CARDS] == sorted(card.usable for card in CARDS)


def test_the_advice_for_a_70b_corrects_common_mistakes() -> None:
    lines = advise(read_shape("llama-3-70b"), PlanSettings())
    assert "24 GB" in lines[0]
    assert "the weights alone take 36.8 GiB" in lines[0]
    assert "2 such cards and FSDP with parameters offloaded to host memory" in lines[0]
    assert lines[-1].startswith("Fits on 48 GB")


@pytest.mark.parametrize(
    ("cards", "usable", "offload", "fits_on"),
    [(2, 23.6, False, False), (2, 23.6, True, True), (2, 39.3, False, True)],
)
def test_two_cards_hold_a_70b_as_was_published(
    cards: int, usable: float, offload: bool, fits_on: bool
) -> None:
    """Two cards of 24 GB with offloading (Answer.AI, 2024-03), or two of 40 GB without."""
    needed = per_card(read_shape("llama-3-70b"), PlanSettings(seq_len=512), cards, offload)
    assert (needed / GIB <= usable) is fits_on


def test_a_change_that_is_advised_makes_it_fit() -> None:
    shape, settings = read_shape("llama-3-8b"), PlanSettings(method="lora", batch=8, seq_len=2048)
    line = advise(shape, settings)[0]
    assert "a batch of 1 with gradient accumulation" in line
    fixed = PlanSettings(method="lora", batch=1, seq_len=2048)
    assert any(fit.fits for fit in fits(memory_of(shape, fixed)) if fit.card.sold_gb == 24)


def test_where_no_card_fits_the_advice_says_so() -> None:
    lines = advise(read_shape("llama-3-70b"), PlanSettings(method="full"))
    assert "No single card is large enough" in lines[-1]
