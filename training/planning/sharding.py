"""Memory on each of several cards under FSDP (fully sharded data parallel), more roughly than one card's.

What is resident is cut into as many shards as there are cards; activations are not, every card has a batch of
its own. While a block works its weights are gathered whole, the next one's too; embeddings and the head are
one unit that is gathered for the loss. Not measured here; Answer.AI trained 70B on two 24 GB cards with
offloading (2024-03), which is also what this says.
"""

from training.planning.memory import memory_of, weight_bytes
from training.planning.settings import Settings
from training.planning.shapes import ModelShape

BLOCKS_AT_ONCE = 2
"""The one at work and the one that is fetched meanwhile."""


def per_card(shape: ModelShape, settings: Settings, cards: int, offload: bool = False) -> int:
    """Bytes on each of `cards`. With `offload`, what is resident lives in host memory between uses."""
    memory = memory_of(shape, settings)
    changing = memory.activations + memory.working + memory.overhead
    resident = 0 if offload else memory.resident // cards
    return resident + changing + _gathered(shape, settings, memory.quantization_constants)


def _gathered(shape: ModelShape, settings: Settings, constants: int) -> int:
    ends = (shape.embedding_parameters + shape.head_parameters) * settings.weight_bytes
    blocks = weight_bytes(shape, settings) + constants - ends
    return ends + BLOCKS_AT_ONCE * blocks // shape.layers
