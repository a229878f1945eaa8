"""Measures how much a hostile tenant slows down another tenant, in quiet and hostile windows on one real
server.

python -m tests.campaigns.hostile_tenant --minutes 10 --output hostile.json

On a machine with two cores, four processes share them: the engine, the server, the victim's client (a few
percent of a core) and the attacker. The attacker has the lowest priority, so that its own computing is not
measured as the server's.
"""

import asyncio
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from lora_compose.benchmarks.machine import describe
from lora_compose.server.tenants.key import Quotas
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.campaigns.hostile.attacker import Attacker, Order, attacker
from tests.campaigns.hostile.attacks import ATTACKS
from tests.campaigns.hostile.scene import OPTIONS, QUOTAS, VICTIM, Scene, scene
from tests.campaigns.hostile.verdict import BOUND, Pair, Ratio, failures, ratios
from tests.campaigns.hostile.victim import MODEL, RATE, Victim, victim

WINDOW_SECONDS = 12.0
LEAD_SECONDS = 1.0
"""An attack starts this long before the measured window, and ends this long after it."""
SETTLE_SECONDS = 2.0
PAIR_SECONDS = 2 * WINDOW_SECONDS + 2 * LEAD_SECONDS + SETTLE_SECONDS


@dataclass
class Run:
    """The result: pairs of windows, and the statuses that the attacker received in each hostile window."""

    pairs: list[Pair]
    replies: list[dict[str, Any]]


@dataclass(frozen=True)
class Stage:
    """The server, the victim and the attacker of all windows."""

    scene: Scene
    victim: Victim
    attacker: Attacker
    seed: int

    async def pair(self, attack: str, quotas: bool, number: int) -> tuple[Pair, dict[str, Any]]:
        """Measure a quiet window, then a hostile one.

        The attacker gets a new key, so it has no token debt.
        """
        seed, name = f"{self.seed}/{number}", f"hostile{number}"
        key = self.scene.hostile_key(name, quotas)
        quiet = await self.victim.window(WINDOW_SECONDS, f"{seed}/quiet")
        self.attacker.start(Order(attack, WINDOW_SECONDS + 2 * LEAD_SECONDS, name, key, seed))
        await asyncio.sleep(LEAD_SECONDS)
        hostile = await self.victim.window(WINDOW_SECONDS, f"{seed}/hostile")
        replies = await asyncio.to_thread(self.attacker.wait)
        await asyncio.sleep(SETTLE_SECONDS)
        return Pair(attack, quotas, quiet, hostile), replies


async def measure(found: Scene, attacks: Sequence[str], rounds: int, contrast: bool, seed: int) -> Run:
    """Measure every attack in each round with quotas. With `contrast`, add one round without quotas."""
    plan = [(attack, True) for _ in range(rounds) for attack in attacks]
    plan += [(attack, False) for attack in attacks if contrast]
    run = Run([], [])
    with attacker(found.port, str(ADAPTERS_DIR)) as process, _progress() as progress:
        async with victim(found.server.url, found.secrets[VICTIM], seed) as who:
            stage = Stage(found, who, process, seed)
            for number, (attack, quotas) in enumerate(progress.track(plan, description="windows")):
                pair, replies = await stage.pair(attack, quotas, number)
                run.pairs.append(pair)
                run.replies.append({"attack": attack, "quotas": quotas, **replies})
    return run


def _progress() -> Progress:
    return Progress(console=Console(stderr=True), transient=True)


def summary(run: Run, seed: int) -> dict[str, Any]:
    """The figures with and without quotas, for all attacks together and for each attack."""
    found: dict[str, Any] = {}
    for quotas in (True, False):
        pairs = [pair for pair in run.pairs if pair.quotas == quotas]
        names = list(dict.fromkeys(pair.attack for pair in pairs))
        groups = {"all windows": pairs} | {name: [p for p in pairs if p.attack == name] for name in names}
        if pairs:
            found["quotas on" if quotas else "quotas off"] = {
                name: _group(group, run, name, quotas, seed) for name, group in groups.items()
            }
    return found


def _group(pairs: Sequence[Pair], run: Run, name: str, quotas: bool, seed: int) -> dict[str, Any]:
    replies: Counter[str] = Counter()
    for window in run.replies:
        if window["quotas"] == quotas and name in ("all windows", window["attack"]):
            replies.update(window["statuses"])
    return {
        "ratios": [asdict(ratio) for ratio in ratios(pairs, seed)],
        "victim_requests": {
            "quiet": sum(len(pair.quiet) for pair in pairs),
            "hostile": sum(len(pair.hostile) for pair in pairs),
        },
        "victim_failures": failures(pairs),
        "hostile_statuses": dict(replies.most_common()),
    }


def table(found: dict[str, Any]) -> Table:
    """The figures as a table for a terminal."""
    shown = Table("quotas", "attack", "what", "n", "quiet ms", "hostile ms", "×", "95 %", "", box=None)
    for quotas, groups in found.items():
        for name, group in groups.items():
            for row in group["ratios"]:
                ratio = Ratio(**row)
                shown.add_row(quotas, name, f"{ratio.quantile} {ratio.metric}", *_cells(ratio))
    return shown


def _cells(ratio: Ratio) -> list[str]:
    verdict = "" if ratio.quantile == "p50" else "kept" if ratio.is_kept else "MISSED"
    interval = f"{ratio.low:.2f} - {ratio.high:.2f}"
    numbers = f"{1e3 * ratio.quiet:.1f}", f"{1e3 * ratio.hostile:.1f}", f"{ratio.ratio:.2f}"
    return [str(ratio.count), *numbers, interval, verdict]


def _show_failures(found: dict[str, Any]) -> None:
    for quotas, groups in found.items():
        for name, group in groups.items():
            typer.echo(f"{quotas}, {name}: failed requests of the victim: {group['victim_failures']}")
            typer.echo(f"    replies to the attacker: {group['hostile_statuses']}")


def main(
    minutes: Annotated[float, typer.Option(min=0.5, help="Minutes of windows with quotas, about.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Seed of all requests.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Write the result here, as JSON.")] = None,
    rows: Annotated[bool, typer.Option(help="Include every request of the victim in the result.")] = False,
    attack: Annotated[list[str] | None, typer.Option(help="Run only this attack. Can be repeated.")] = None,
    contrast: Annotated[bool, typer.Option(help="Add a round without quotas.")] = True,
) -> None:
    """Measure a victim's latency in windows with and without a hostile tenant, in one run.

    - `python -m tests.campaigns.hostile_tenant --minutes 10 --output hostile.json`
    - `python -m tests.campaigns.hostile_tenant --minutes 1 --attack prompts --no-contrast`
    """
    attacks = attack or list(ATTACKS)
    if unknown := set(attacks) - set(ATTACKS):
        raise typer.BadParameter(f"unknown: {', '.join(unknown)}. Attacks are {', '.join(ATTACKS)}.")
    rounds = max(1, round(minutes * 60 / (PAIR_SECONDS * len(attacks))))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home, scene(Path(home)) as found:
        run = asyncio.run(measure(found, attacks, rounds, contrast, seed))
    figures = summary(run, seed)
    if output is not None:
        document = _document(seed, rounds, figures) | (
            {"pairs": list(map(asdict, run.pairs))} if rows else {}
        )
        output.write_text(json.dumps(document, indent=1) + "\n")
    Console(width=120).print(table(figures))
    _show_failures(figures)


def _document(seed: int, rounds: int, figures: dict[str, Any]) -> dict[str, Any]:
    quotas: Quotas = QUOTAS
    return {
        "bound": BOUND,
        "seed": seed,
        "rounds": rounds,
        "window_seconds": WINDOW_SECONDS,
        "victim": {"model": MODEL, "rate": RATE},
        "quotas": asdict(quotas),
        "options": OPTIONS,
        "machine": describe(),
        "figures": figures,
    }


if __name__ == "__main__":
    typer.run(main)
