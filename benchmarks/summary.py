"""What a run found: for every arm of every phase its value, and its ratio to the phase's first arm."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.arms import Arm
from benchmarks.passes import Pass, value_by_round
from benchmarks.phases import Phase
from benchmarks.ratios import Spread, ratios_by_round, spread


@dataclass(frozen=True)
class Finding:
    """One arm of one phase. `value` is the median over rounds, in the phase's unit."""

    phase: str
    arm: str
    unit: str
    value: float | None
    ratio: Spread | None
    """Over rounds; None for the reference itself, and where no round is whole."""
    bound: float | None
    met: bool | None
    failed: int
    requests: int


def findings(phases: Sequence[Phase], passes: Sequence[Pass], seed: int) -> list[Finding]:
    """One finding an arm, in the order they were measured in."""
    return [_finding(phase, arm, passes, seed) for phase in phases for arm in phase.arms]


def _finding(phase: Phase, arm: Arm, passes: Sequence[Pass], seed: int) -> Finding:
    mine = [one for one in passes if one.phase == phase.name]
    values = value_by_round(mine, arm.name, phase.value)
    reference = phase.arms[0]
    ratio = None
    if arm != reference:
        ratio = spread(ratios_by_round(values, value_by_round(mine, reference.name, phase.value)), seed)
    own = [one for one in mine if one.arm == arm.name]
    return Finding(
        phase=phase.name,
        arm=arm.name,
        unit=phase.unit,
        value=median(values.values()) if values else None,
        ratio=ratio,
        bound=arm.bound,
        met=None if arm.bound is None or ratio is None else phase.meets(ratio.median, arm.bound),
        failed=sum(one.failures for one in own),
        requests=sum(len(one.rows) for one in own),
    )
