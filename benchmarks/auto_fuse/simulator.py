"""`python -m lora_compose.benchmarks.auto_fuse.simulator` measures what automatic fusing gains and what it
can cost.

A simulated server serves made-up traffic under server/fusion/policy.py. Its cost is compared with never
fusing and with the best fixed choice in hindsight. No model runs: the prices of a machine are options, not
measured.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from lora_compose.adapters.terminal import stdout
from lora_compose.benchmarks.auto_fuse.comparison import (
    COST_BOUND,
    GAIN_BOUND,
    MEASURED,
    ComparisonRow,
    rows,
    traces,
)
from lora_compose.server.fusion.policy import FusePolicySettings
from lora_compose.server.fusion.token_prices import Costs

DESCRIPTION = """\
Replays made-up traffic through the policy that decides when to fuse. The cost (serving time plus the time of
switches) is compared with never fusing and with the best fixed choice in hindsight. Two bounds are checked:
at most 1.1 times the cost of never fusing on every trace, and at least 0.9 of the best fixed choice's gain on
the steady trace. Each trace runs three times: the policy assumes the true prices, or prices that are 30 % too
low or too high."""

CAPTION = (
    "assumed: price of LoRA work that the policy assumes, as a factor of the true price. "
    "share of gain: saved time as a share of what the best fixed choice saves. If no composition has a clear "
    "majority, the policy never fuses, even if fusing would save time at these prices."
)

EPILOG = """\
examples:
  python -m lora_compose.benchmarks.auto_fuse.simulator
  python -m lora_compose.benchmarks.auto_fuse.simulator --overhead 0.3 --per-member 0.15 --switch-seconds 8
  python -m lora_compose.benchmarks.auto_fuse.simulator --seconds 600 --json results.json

Exit code 1: a bound was missed. A trace that is too short for a switch to pay off misses the second bound."""


def table(compared: Sequence[ComparisonRow], title: str) -> Table:
    """A line for each row, in one block for each trace."""
    drawn = Table(title=title, title_justify="left", caption=CAPTION, caption_justify="left")
    for header in (
        "trace",
        "assumed",
        "best fixed",
        "cost / never",
        "bound",
        "share of gain",
        "switches",
        "fused",
    ):
        drawn.add_column(header, justify="left" if header in {"trace", "best fixed", "fused"} else "right")
    for row in compared:
        first = row.assumed == MEASURED[0]
        if first and row is not compared[0]:
            drawn.add_section()
        drawn.add_row(*([row.trace] if first else [""]), *_cells(row))
    return drawn


def _cells(row: ComparisonRow) -> list[str]:
    share = "-" if row.share_of_gain is None else f"{row.share_of_gain:.2f}"
    if row.gain_bound is not None:
        share += f" (>= {row.gain_bound})"
    fused = ", ".join(f"{model} x{count}" for model, count in row.outcome.fuses.items()) or "-"
    verdict = "[green]kept[/]" if row.kept else "[red]missed[/]"
    switches = str(len(row.outcome.switched_at))
    return [f"x{row.assumed:g}", row.best or "never", f"{row.ratio:.3f}", verdict, share, switches, fused]


def verdicts(compared: Sequence[ComparisonRow]) -> list[str]:
    """One sentence for each bound, and one for all of them."""
    dearest = max(compared, key=lambda row: row.ratio)
    bounded = [row for row in compared if row.gain_bound is not None]
    least = min(row.share_of_gain or 0.0 for row in bounded)
    missed = sum(not row.kept for row in compared)
    return [
        f"Cost at most {COST_BOUND} x never fusing: the highest is {dearest.ratio:.3f} ({dearest.trace}).",
        f"Gain at least {GAIN_BOUND} of the best fixed choice, on the steady trace: the lowest is "
        f"{least:.3f}.",
        "All rows are within their bounds."
        if not missed
        else f"{missed} of {len(compared)} rows miss a bound.",
    ]


def document(compared: Sequence[ComparisonRow], config: dict[str, Any]) -> dict[str, Any]:
    """The whole run as JSON."""
    shown = []
    for row in compared:
        fields = asdict(row)
        fields["told"] = fields.pop("assumed")  # the name in the file
        ratios = {"ratio": row.ratio, "share_of_gain": row.share_of_gain, "kept": row.kept}
        shown.append(fields | ratios)
    return {"benchmark": "fuse_simulator", **config, "rows": shown}


def _parser() -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m lora_compose.benchmarks.auto_fuse.simulator",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=shape,
    )
    add = parser.add_argument
    add("--seed", type=int, default=0, help="seed of the traffic (default: %(default)s)")
    add("--seconds", type=int, default=3600, help="length of each trace (default: %(default)s)")
    add("--overhead", type=float, default=0.12, help="extra time of a token with LoRA work; 0.12 is 12 %%")
    add("--per-member", type=float, default=0.04, help="extra time for each further adapter in its stack")
    add("--switch-seconds", type=float, default=3.0, help="seconds that serving is paused for a switch")
    add("--json", type=Path, metavar="PATH", help="write the result here")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all traces and print the comparison. Returns 1 if a bound was missed."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        costs = Costs(options.overhead, options.per_member, options.switch_seconds)
    except ValueError as error:
        parser.error(str(error))
    if options.seconds < 1:
        parser.error(f"--seconds ({options.seconds}) must be at least 1")
    settings = FusePolicySettings()
    compared = [
        row
        for number, trace in enumerate(traces(options.seed, options.seconds, costs, settings))
        for row in rows(trace, costs, settings, GAIN_BOUND if number == 0 else None)
    ]
    console = stdout()
    title = (
        f"{options.seconds} s of traffic, seed {options.seed}: LoRA work takes {costs.overhead:.0%} longer, "
        f"and {costs.per_member:.0%} more for each further adapter; a switch takes {costs.switch_seconds:g} s"
    )
    console.print(table(compared, title))
    console.print("\n".join(verdicts(compared)))
    if options.json is not None:
        config = {"seed": options.seed, "seconds": options.seconds, "costs": asdict(costs)}
        options.json.write_text(
            json.dumps(document(compared, config | {"settings": asdict(settings)})) + "\n"
        )
        console.print(f"wrote {options.json}")
    return 0 if all(row.kept for row in compared) else 1


if __name__ == "__main__":
    raise SystemExit(main())
