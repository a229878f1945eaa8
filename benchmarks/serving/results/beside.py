"""Our arms beside the arms of llama.cpp that have the same answers: speeds and three ratios.

Computed from the result only.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lora_compose.benchmarks.serving.results.document import BenchmarkResult, Pass
from lora_compose.benchmarks.serving.results.plan import Arm, Cell
from lora_compose.benchmarks.serving.results.summary import BASE, ratios, tokens_a_second
from lora_compose.benchmarks.statistics import Spread, spread

LLAMACPP_BASE = Arm("llamacpp", 0).name
SPEED = "output_throughput"


@dataclass(frozen=True)
class Beside:
    """An arm of this server and its counterpart in one cell. Ratios are taken within repeats; None: none."""

    cell: Cell
    arm: str
    ours: Spread | None
    """Tokens a second."""
    llamacpp: Spread | None
    ratio: Spread | None
    """Ours / llama.cpp's."""
    own: Spread | None
    """Ours / our base's."""
    llamacpp_own: Spread | None
    """llama.cpp's / its base's."""
    longest_wait: float
    """The longest time to a first token on our server, in seconds."""
    llamacpp_longest_wait: float

    def to_json(self) -> dict[str, Any]:
        """All figures, with the cell as text."""
        return {**asdict(self), "cell": self.cell.id}


def beside_llamacpp(document: BenchmarkResult) -> list[Beside]:
    """Every arm that was measured on both servers, in the order of the plan. Empty without llama.cpp."""
    return [
        _beside(document, cell, arm)
        for cell in document.plan.cells()
        for arm in document.plan.all_arms
        if arm.on_llamacpp is not None
        and _passes(document, cell, arm.on_llamacpp.name)
        and _passes(document, cell, arm.name)
    ]


def split_batches(document: BenchmarkResult) -> list[str]:
    """One sentence for each arm of llama.cpp whose requests could not be computed in one batch."""
    found = []
    for arm in document.plan.all_arms:
        own = [run for run in document.passes if run.arm == arm.name]
        if arm.server != "llamacpp" or not arm.members or not own:
            continue
        different = len({row.composition for run in own for row in run.rows})
        if different > 1:
            found.append(
                f"{arm.name}: llama.cpp puts only requests with the same adapters and weights into one "
                f"batch, so the {different} compositions took turns; the longest wait for a first token was "
                f"{longest_wait(own):.1f} s"
            )
    return found


def longest_wait(passes: Sequence[Pass]) -> float:
    """The longest time to a first token, in seconds."""
    return max((row.times[0] - row.due for run in passes for row in run.rows if row.times), default=0.0)


def _beside(document: BenchmarkResult, cell: Cell, arm: Arm) -> Beside:
    assert arm.on_llamacpp is not None
    seed = document.plan.seed
    ours, theirs, base, their_base = (
        _passes(document, cell, name) for name in (arm.name, arm.on_llamacpp.name, BASE, LLAMACPP_BASE)
    )
    return Beside(
        cell,
        arm.name,
        spread([tokens_a_second(run) for run in ours], seed),
        spread([tokens_a_second(run) for run in theirs], seed),
        ratios(ours, theirs, seed).get(SPEED),
        ratios(ours, base, seed).get(SPEED),
        ratios(theirs, their_base, seed).get(SPEED),
        longest_wait(ours),
        longest_wait(theirs),
    )


def _passes(document: BenchmarkResult, cell: Cell, arm: str) -> list[Pass]:
    return [run for run in document.passes if (run.cell, run.arm) == (cell, arm)]
