"""What a run has measured so far. The result is made of it."""

from dataclasses import dataclass, field

from lora_compose.benchmarks.serving.results.document import Difference, FirstUse, Pass, Switch, UnlikeBase
from lora_compose.benchmarks.serving.results.plan import Plan


@dataclass
class Measured:
    """Everything that a run measured."""

    plan: Plan
    workload_digest: str = ""
    passes: list[Pass] = field(default_factory=list)
    cold: list[FirstUse] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    unlike_base: list[UnlikeBase] = field(default_factory=list)
    """For each composition, the number of prompts that it answers differently from the base.

    If it is 0, answers that come from the base by mistake cannot be noticed."""
    loads: list[tuple[float, float, float]] = field(default_factory=list)
    others_busy: list[float] = field(default_factory=list)
    stolen: list[float] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)
    """Parts of the run that the server refused, with the reasons."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Arms that were not measured, with the reasons."""
    truncated: bool = False
    """Whether --max-seconds ended the run early, or left out an arm."""
