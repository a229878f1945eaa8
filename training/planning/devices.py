"""Common GPUs, and how much of their memory a process can use.

A card sold as "24 GB" has up to 24 GiB (1024³), minus the memory that the driver and error correction keep.
`usable` is torch.cuda.get_device_properties(0).total_memory, rounded down, as out-of-memory messages quote it
("has a total capacity of 23.64 GiB"). The figures of the 24, 32, 40 and 80 GB cards, the 48 GB cards with
error correction and the RTX PRO 6000 were found in such messages. The other figures are not confirmed.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Card:
    """Cards with the same memory: the size they are sold with, their names, and the usable GiB."""

    sold_gb: int
    names: str
    usable: float


CARDS: Final = (
    Card(24, "A10, L4 (error correction on)", 21.9),
    Card(24, "RTX 3090, RTX 4090", 23.6),
    Card(32, "RTX 5090, V100 32 GB", 31.3),
    Card(40, "A100 40 GB", 39.3),
    Card(48, "L40S, A40, RTX 6000 Ada (error correction on)", 44.3),
    Card(48, "RTX A6000, RTX 6000 Ada (off)", 47.4),
    Card(80, "A100 80 GB, H100 80 GB", 79.1),
    Card(96, "RTX PRO 6000, GH200 96 GB", 94.5),
    Card(141, "H200", 139.7),
    Card(192, "B200", 178.3),
    Card(192, "MI300X", 191.6),
)


def largest_of(sold_gb: int) -> Card:
    """The card with the most memory among those sold as `sold_gb`."""
    return max((card for card in CARDS if card.sold_gb == sold_gb), key=lambda card: card.usable)
