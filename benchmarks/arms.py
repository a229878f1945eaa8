"""What is compared: each arm is the models its requests ask for, and the bound the project set itself.

The bounds are shown beside what was measured. Nothing here adapts to them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

BASE = "base"
SINGLE = "one adapter"
STACK_OF_THREE = "stack of three"
OURS = "lora-compose"
DIRECT = "vLLM's app"
NEEDED_ADAPTERS = 4


@dataclass(frozen=True)
class Arm:
    """A kind of request. Request i of a pass asks for `models[i % len(models)]`."""

    name: str
    models: tuple[str, ...]
    bound: float | None = None
    """The ratio to the reference arm that the project asks for: at least or at most, the phase says which."""
    server: str = OURS


def throughput_arms(base: str, adapters: Sequence[str]) -> tuple[Arm, ...]:
    """The base first, then what is held against it. `adapters` are at least four registered names."""
    one, two, three, four = adapters[:NEEDED_ADAPTERS]
    eight = (Arm("eight adapters in one batch", tuple(adapters[:8]), bound=0.70),)
    return (
        Arm(BASE, (base,)),
        Arm(SINGLE, (one,), bound=0.92),
        Arm("stack of two", (f"{one}+{two}",)),
        Arm(STACK_OF_THREE, (f"{one}+{two}+{three}",), bound=0.75),
        Arm("stack of four", (f"{one}+{two}+{three}+{four}",), bound=0.88),
        Arm("svd merge of two", (f"svd({one}+{two})",)),
        Arm("four adapters in one batch", (one, two, three, four), bound=0.80),
        *(eight if len(adapters) >= 8 else ()),
    )


def prefill_arms(base: str, adapters: Sequence[str]) -> tuple[Arm, ...]:
    """The base first."""
    one, two, three = adapters[:3]
    return (
        Arm(BASE, (base,)),
        Arm(SINGLE, (one,), bound=1.2),
        Arm(STACK_OF_THREE, (f"{one}+{two}+{three}",)),
    )


def layer_arms(base: str, direct_base: str) -> tuple[Arm, ...]:
    """The same base requests to vLLM's own app and through our server."""
    return (
        Arm(DIRECT, (direct_base,), server=DIRECT),
        Arm(OURS, (base,), bound=0.97),
    )
