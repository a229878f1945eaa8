"""Advice for a plan: the cards that are too small and why, changes that would make it fit, and the smallest
card.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from lora_compose.training.planning.devices import CARDS, Card, largest_of
from lora_compose.training.planning.memory import GIB, Memory, memory_of, per_card
from lora_compose.training.planning.settings import PlanSettings
from lora_compose.training.planning.shapes import ModelShape

TIGHT: Final = 0.03
"""A fit with less free memory than this share of the card is tight, because the plan has an error of this
size.
"""


@dataclass(frozen=True)
class Fit:
    """How much of a card's memory a plan leaves free."""

    card: Card
    spare: float
    """Free memory in GiB. Negative if the plan does not fit."""

    @property
    def fits(self) -> bool:
        return self.spare >= 0

    @property
    def tight(self) -> bool:
        return 0 <= self.spare < TIGHT * self.card.usable

    @property
    def verdict(self) -> str:
        """`no`, `tight` or `yes`."""
        return "tight" if self.tight else "yes" if self.fits else "no"


def fits(memory: Memory) -> list[Fit]:
    """A Fit for every card of CARDS, smallest first."""
    return [Fit(card, card.usable - memory.total / GIB) for card in CARDS]


def advise(shape: ModelShape, settings: PlanSettings) -> list[str]:
    """A sentence for each card size that is too small, then one for the smallest card that fits."""
    memory = memory_of(shape, settings)
    found = fits(memory)
    sizes = dict.fromkeys(fit.card.sold_gb for fit in found)
    lines = [
        _too_small(shape, settings, memory, sold)
        for sold in sizes
        if not any(fit.fits for fit in found if fit.card.sold_gb == sold)
    ]
    smallest = next((fit for fit in found if fit.fits), None)
    if smallest is None:
        return [
            *lines,
            f"No single card is large enough for {_gib(memory.total)}. Use several cards with FSDP, or a "
            "method that needs less memory.",
        ]
    lines.append(_smallest(smallest, memory))
    if settings.optimizer.startswith("paged") and memory.optimizer:
        lines.append(
            f"The paged optimizer can move its {_gib(memory.optimizer)} to host memory if the card's memory "
            "is full. The plan counts them on the card."
        )
    return lines


def _smallest(fit: Fit, memory: Memory) -> str:
    card = f"{fit.card.sold_gb} GB ({fit.card.names})"
    line = f"Fits on {card}: {_gib(memory.total)} of {fit.card.usable:.1f} GiB."
    return f"{line} This is tight: use a card without a display, and no larger batch." if fit.tight else line


def _too_small(shape: ModelShape, settings: PlanSettings, memory: Memory, sold_gb: int) -> str:
    card = largest_of(sold_gb)
    start = f"Does not fit on {sold_gb} GB ({card.usable:.1f} GiB usable):"
    weights = memory.weights + memory.quantization_constants
    why = f"it needs {_gib(memory.total)}."
    if weights / GIB > card.usable:
        why = f"the weights alone take {_gib(weights)}."
    elif memory.resident / GIB > card.usable:
        why = f"weights, gradients and optimizer states alone take {_gib(memory.resident)}."
    ways = [*_changes(shape, settings, card), *_cards(shape, settings, card)]
    advice = f"It would fit with {'; or '.join(ways)}." if ways else "No change would help."
    return f"{start} {why} {advice}"


Change = Callable[[PlanSettings], PlanSettings]


def _changes(shape: ModelShape, settings: PlanSettings, card: Card) -> Iterator[str]:
    """The smallest set of changes, the cheapest first, that makes the plan fit on one card."""

    def fit(changes: Sequence[tuple[str, Change]]) -> bool:
        changed = settings
        for _, change in changes:
            changed = change(changed)
        return memory_of(shape, changed).total / GIB <= card.usable

    savings = list(_savings(settings))
    enough = next((savings[:n] for n in range(1, len(savings) + 1) if fit(savings[:n])), [])
    for saving in enough[:-1]:
        without = [other for other in enough if other is not saving]
        enough = without if fit(without) else enough
    if enough:
        yield " and ".join(words for words, _ in enough)


def _savings(settings: PlanSettings) -> Iterator[tuple[str, Change]]:
    """Changes that save memory, cheapest first."""
    if settings.full_logits:
        yield "a loss in tiles", lambda s: replace(s, full_logits=False)
    if not settings.gradient_checkpointing:
        yield "gradient checkpointing", lambda s: replace(s, gradient_checkpointing=True)
    if settings.batch > 1:
        yield "a batch of 1 with gradient accumulation", lambda s: replace(s, batch=1)
    if not settings.optimizer.endswith("8bit"):
        yield "the paged 8-bit optimizer", lambda s: replace(s, optimizer="paged_adamw_8bit")
    if settings.method == "qlora" and not settings.double_quant:
        yield "double quantization", lambda s: replace(s, double_quant=True)
    if settings.seq_len > 512:
        yield "sequences of 512", lambda s: replace(s, seq_len=512)
    if settings.method == "full":
        yield "LoRA instead of full fine-tuning", lambda s: replace(s, method="lora", dtype=None)
    if settings.method != "qlora":
        yield "QLoRA", lambda s: replace(s, method="qlora", dtype=None)


def _cards(shape: ModelShape, settings: PlanSettings, card: Card) -> Iterator[str]:
    """The smallest number of cards that fits with FSDP, with the weights on the cards or in host memory."""
    for offload, words in ((False, "and FSDP"), (True, "and FSDP with parameters offloaded to host memory")):
        for cards in (2, 4, 8):
            if per_card(shape, settings, cards, offload) / GIB <= card.usable:
                yield f"{cards} such cards {words}"
                break
        else:
            continue
        if not offload and cards == 2:  # offloading cannot need fewer cards
            return


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
