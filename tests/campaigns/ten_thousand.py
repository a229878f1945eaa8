"""Fills a registry with thousands of adapters and measures which operations become slower.

python -m tests.campaigns.ten_thousand --count 10000 --output ten_thousand.json
"""

import json
import random
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from lora_compose.adapters.registry.registry import Registry
from lora_compose.server.client.http import Client
from tests.adapters.registries import register

MARKS = (100, 1_000, 3_000, 10_000)
ROUNDS = 15
LOOKUPS = 50
Timed = Callable[[], object]


@dataclass
class Filled:
    """A registry that is being filled, and the operations that are timed on it."""

    home: Path
    registry: Registry
    extra: int = 0

    @classmethod
    def open(cls, home: Path) -> "Filled":
        return cls(home, Registry(home))

    def fill(self, upto: int) -> None:
        """Register adapters until the registry has `upto`."""
        missing = range(self.registry.count(), upto)
        console = Console(stderr=True)
        for number in track(missing, f"registering {len(missing)}", console=console, transient=True):
            register(self.registry, _name(number), f"content {number}")

    def measures(self) -> dict[str, Timed]:
        """The timed operations. The order matters: `remove` removes what `register` registered."""
        names = [_name(random.Random(0).randrange(self.registry.count())) for _ in range(LOOKUPS)]
        return {
            "lookup": lambda: [self.registry.resolve(name) for name in names],
            "list": lambda: self.registry.catalogue(),
            "models": lambda: self.registry.newest(),
            "register": self._register_one_more,
            "remove": lambda: self.registry.remove("extra"),
            "sweep": lambda: self.registry.sweep(),
            "restart": self._reopen,
        }

    def _register_one_more(self) -> None:
        self.extra += 1
        register(self.registry, "extra", f"extra {self.extra}")

    def _reopen(self) -> None:
        self.registry.close()
        self.registry = Registry(self.home)


def _name(number: int) -> str:
    return f"adapter{number:05d}"


def grow(filled: Filled, small: Filled, count: int) -> list[dict[str, Any]]:
    """Times at each mark up to `count`, and their ratios to `small`, a registry of 100, measured in turn."""
    small.fill(MARKS[0])
    found = []
    for mark in [mark for mark in MARKS if mark < count] + [count]:
        began = time.perf_counter()
        filled.fill(mark)
        seconds = time.perf_counter() - began
        rows = compare(filled.measures(), small.measures())
        found.append({"adapters": mark, "filled_in_seconds": seconds, "measures": rows})
    return found


def compare(many: Mapping[str, Timed], few: Mapping[str, Timed]) -> dict[str, dict[str, list[float]]]:
    """Quartiles of the seconds of each operation, and of the ratios of neighbouring measurements."""
    pairs: dict[str, list[tuple[float, float]]] = {name: [] for name in many}
    for turn in range(ROUNDS):
        for name, timed in many.items():
            first, second = (timed, few[name]) if turn % 2 else (few[name], timed)
            seconds = (_seconds(first), _seconds(second))
            pairs[name].append(seconds if turn % 2 else seconds[::-1])
    return {
        name: {
            "seconds": statistics.quantiles([many for many, _ in taken], n=4),
            "ratio_to_100": statistics.quantiles([many / few for many, few in taken], n=4),
        }
        for name, taken in pairs.items()
    }


def over_http(client: Client) -> dict[str, Any]:
    """Quartiles of the seconds of a lookup and of two lists, and the server's number of adapters."""
    names = sorted({adapter["name"] for adapter in client.adapters()})
    chosen = random.Random(0)
    measures: dict[str, Timed] = {
        "lookup": lambda: client.adapter(chosen.choice(names)),
        "list": client.adapters,
        "models": client.models,
    }
    taken = {name: [_seconds(timed) for _ in range(ROUNDS)] for name, timed in measures.items()}
    rows = {name: {"seconds": statistics.quantiles(seconds, n=4)} for name, seconds in taken.items()}
    return {"adapters": len(names), "measures": rows}


def _seconds(timed: Timed) -> float:
    began = time.perf_counter()
    timed()
    return time.perf_counter() - began


def _table(found: list[dict[str, Any]]) -> Table:
    table = Table("adapters", "what", "median ms", "quartiles", "× 100", "quartiles", box=None)
    for row in found:
        for name, measure in row["measures"].items():
            low, middle, high = (1e3 * value for value in measure["seconds"])
            cells = [str(row["adapters"]), name, f"{middle:.2f}", f"{low:.2f} - {high:.2f}"]
            if ratio := measure.get("ratio_to_100"):
                cells += [f"{ratio[1]:.2f}", f"{ratio[0]:.2f} - {ratio[2]:.2f}"]
            table.add_row(*cells)
    return table


def _in_process(count: int, data_dir: Path | None) -> list[dict[str, Any]]:
    work = Path(tempfile.mkdtemp())
    filled, small = Filled.open(data_dir or work / "many"), Filled.open(work / "few")
    try:
        return grow(filled, small, count)
    finally:
        filled.registry.close()
        small.registry.close()
        for folder in work.glob("*/store/*"):
            folder.chmod(0o755)
        shutil.rmtree(work)


def main(
    count: Annotated[int, typer.Option(min=100, help="Number of adapters to register.")] = 10_000,
    output: Annotated[Path | None, typer.Option(help="Write the result here, as JSON.")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Fill this registry and keep it.")] = None,
    url: Annotated[str | None, typer.Option(help="Only list and look up, on this running server.")] = None,
    api_key: Annotated[str | None, typer.Option(help="API key for --url.")] = None,
) -> None:
    """Register thousands of adapters and measure lookup, listing, registering, removing and restart.

    Each operation is timed in turn on this registry and on one of 100 adapters. The medians of the ratios
    show which times grow. One timed lookup is fifty lookups. The adapters have a few bytes, because a
    registry does not read their content.

    - `python -m tests.campaigns.ten_thousand --count 10000 --output ten_thousand.json`
    - `python -m tests.campaigns.ten_thousand --data-dir D`, then `lora-compose serve --data-dir D`, then
      `python -m tests.campaigns.ten_thousand --url http://127.0.0.1:8000`
    """
    if url is None:
        found = _in_process(count, data_dir)
    else:
        with Client(url, api_key) as client:
            found = [over_http(client)]
    if output is not None:
        output.write_text(json.dumps(found, indent=2) + "\n")
    Console().print(_table(found))


if __name__ == "__main__":
    typer.run(main)
