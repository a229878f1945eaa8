"""Says why a run is too noisy for a recommendation. The rule has fixed limits, and needs the result only.

A run gives a recommendation only if all of these are true:

- At least LEAST_REPEATS repeats have a ratio to the base, so that the interval means something.
- While the run sent nothing, other programs used at most OTHERS of the processors (median over the repeats).
- During the repeats, the hypervisor gave away at most STOLEN of the processors' time (median).
- The fastest repeat of the base is at most REPEATS_DIFFER times as fast as the slowest.
- The upper end of the interval of the stack's speed is at most INTERVAL times the lower end.
"""

from statistics import median

from lora_compose.benchmarks.serving.results.document import BenchmarkResult
from lora_compose.benchmarks.serving.results.plan import Cell
from lora_compose.benchmarks.serving.results.summary import BASE, Summary
from lora_compose.benchmarks.statistics import Spread

LEAST_REPEATS = 3
OTHERS = 0.10
STOLEN = 0.05
REPEATS_DIFFER = 1.5
INTERVAL = 1.5


def noise(document: BenchmarkResult, summary: Summary, cell: Cell, stack: str) -> list[str]:
    """The reasons why `stack` cannot be compared with the base in `cell`, as sentences. Empty: it can."""
    base, entry = summary.find(cell, BASE), summary.find(cell, stack)
    speed = base.output_throughput if base else None
    ratio = entry.ratios.get("output_throughput") if entry else None
    found = [*_busy(document.others_busy), *_stolen(document.stolen)]
    if ratio is None or ratio.count < LEAST_REPEATS:
        count = 0 if ratio is None else ratio.count
        found.append(
            f"{_repeats(count)} of {stack} can be compared with the base. {LEAST_REPEATS} are needed."
        )
    if speed is not None and speed.maximum > REPEATS_DIFFER * speed.minimum:
        found.append(
            f"The repeats of the base differ too much: from {speed.minimum:,.0f} to {speed.maximum:,.0f} "
            f"tokens/s. The fastest may be {REPEATS_DIFFER:g} times as fast as the slowest."
        )
    if ratio is not None and not is_narrow(ratio):
        found.append(
            f"The interval of {stack} is too wide: {percent(ratio.low)} to {percent(ratio.high)} of the "
            f"base's speed. Its upper end may be {INTERVAL:g} times the lower end."
        )
    return found


def is_narrow(ratio: Spread) -> bool:
    """Whether a ratio's interval is narrow enough to name the ratio in a sentence."""
    return ratio.high <= INTERVAL * ratio.low


def percent(ratio: float) -> str:
    """A ratio to the base as text, such as `91 %`."""
    return f"{100 * ratio:.0f} %"


def _repeats(count: int) -> str:
    return "No repeat" if not count else f"Only {count} repeat{'s' if count > 1 else ''}"


def _busy(shares: list[float]) -> list[str]:
    if not shares or median(shares) <= OTHERS:
        return []
    return [
        f"Other programs used {percent(median(shares))} of the processors while the run sent nothing. "
        f"At most {percent(OTHERS)} is allowed."
    ]


def _stolen(shares: list[float]) -> list[str]:
    if not shares or median(shares) <= STOLEN:
        return []
    return [
        f"The hypervisor gave {percent(median(shares))} of the processors' time to other machines. "
        f"At most {percent(STOLEN)} is allowed."
    ]
