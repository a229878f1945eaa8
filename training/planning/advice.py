"""What to do with a plan, in plain words: what fits, what does not and why, and what would make it fit."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from lora_compose.training.planning.architectures import ModelShape
from lora_compose.training.planning.devices import CARDS, Card, largest_of
from lora_compose.training.planning.memory import GIB, Memory, memory_of, per_card
from lora_compose.training.planning.settings import PlanSettings

TIGHT: Final = 0.03
"""What is left should be this share of the card: the plan's own error is no smaller."""


@dataclass(frozen=True)
class Fit:
    """One kind of card against one plan."""

    card: Card
    spare: float
    """GiB left over; negative where it does not fit."""

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
    """Every card of CARDS, smallest first."""
    return [Fit(card, card.usable - memory.total / GIB) for card in CARDS]


def advise(shape: ModelShape, settings: PlanSettings) -> list[str]:
    """A sentence for each size of card that is too small, then the smallest that is not."""
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
            f"No single card fits: {_gib(memory.total)} in all. Shard it, or take a smaller method.",
        ]
    lines.append(_smallest(smallest, memory))
    if settings.optimizer.startswith("paged") and memory.optimizer:
        lines.append(
            f"A paged optimizer may move {_gib(memory.optimizer)} to host memory when memory runs short; "
            "the plan counts them as resident."
        )
    return lines


def _smallest(fit: Fit, memory: Memory) -> str:
    card = f"{fit.card.sold_gb} GB ({fit.card.names})"
    line = f"Fits on {card}: {_gib(memory.total)} of {fit.card.usable:.1f} GiB."
    return f"{line} Tight: leave the screen off it and expect no more than this batch." if fit.tight else line


def _too_small(shape: ModelShape, settings: PlanSettings, memory: Memory, sold_gb: int) -> str:
    card = largest_of(sold_gb)
    start = f"Does not fit on {sold_gb} GB ({card.usable:.1f} GiB usable):"
    weights = memory.weights + memory.quantization_constants
    why = f"{_gib(memory.total)} are needed."
    if weights / GIB > card.usable:
        why = f"the weights alone take {_gib(weights)}."
    elif memory.resident / GIB > card.usable:
        why = f"weights, gradients and optimizer states alone take {_gib(memory.resident)}."
    ways = [*_changes(shape, settings, card), *_cards(shape, settings, card)]
    return (
        f"{start} {why} {'Would fit: ' + '; '.join(ways) + '.' if ways else 'No change here makes it fit.'}"
    )


Change = Callable[[PlanSettings], PlanSettings]


def _changes(shape: ModelShape, settings: PlanSettings, card: Card) -> Iterator[str]:
    """The fewest changes, the cheapest first, that together make it fit on one card."""

    def fit(changes: Sequence[tuple[str, Change]]) -> bool:
        changed = settings
        for _, change in changes:
            changed = change(changed)
        return memory_of(shape, changed).total / GIB <= card.usable

    savings = list(_savings(settings))
    enough = next((savings[:n] for n in range(1, len(savings) + 1) if fit(savings[:n])), [])
    for saving in enough[:-1]:
        without = [each for each in enough if each is not saving]
        enough = without if fit(without) else enough
    if enough:
        yield " and ".join(words for words, _ in enough)


def _savings(settings: PlanSettings) -> Iterator[tuple[str, Change]]:
    """Cheapest first."""
    if settings.full_logits:
        yield "the loss in tiles", lambda s: replace(s, full_logits=False)
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
    """The fewest cards of this kind that fit by FSDP, with the weights on the cards or in host memory."""
    for offload, words in ((False, "with FSDP"), (True, "with FSDP and parameters offloaded to host memory")):
        for cards in (2, 4, 8):
            if per_card(shape, settings, cards, offload) / GIB <= card.usable:
                yield f"{cards} such cards {words}"
                break
        else:
            continue
        if not offload and cards == 2:  # nothing left for offloading to win
            return


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
