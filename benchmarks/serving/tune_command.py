"""`lora-compose bench tune`."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from lora_compose.adapters.command_line import AsJson, echo_json
from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.models.cache import resolve
from lora_compose.adapters.terminal import progress_bar, stdout
from lora_compose.benchmarks.serving.tuning_settings import Setting, Tried, best_of, settings_to_try

EMBEDDED = "the embedded base"
EMBEDDED_ADAPTER = "roll"
GIB = 1 << 30


def tune(
    context: typer.Context,
    *,
    model: Annotated[str, typer.Option(help="The base to serve.", metavar="MODEL")] = EMBEDDED,
    adapter_root: Annotated[
        Path | None,
        typer.Option(help="Directory that has the adapter in a directory of its name.", metavar="DIR"),
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(help="Also measure requests for this adapter.", metavar="NAME", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find the number of threads and the data type with which this CPU serves a model fastest.

    A server is started for each setting, one after the other. That takes one to two minutes on two cores with
    a small model. The table shows tokens a second, and the command to use is printed below it.

    - `lora-compose bench tune --model smollm2`
    - `lora-compose bench tune --model DIR --adapter-root ./adapters --adapter sql --json`

    All other options are passed to the servers. Exit code 1: no setting could be measured.
    """
    from lora_compose.benchmarks.servers import EMBEDDED_ADAPTERS, EMBEDDED_BASE
    from lora_compose.benchmarks.serving.tuning import Model, started, try_all
    from lora_compose.server.cpu_defaults import BF16_FLAGS, defaults_for, find_cpu, is_cpu_build

    if not is_cpu_build():
        raise LoraComposeError(CommandCode.COMMAND_UNAVAILABLE, "bench tune is for vLLM's build for CPUs.")
    embedded = model == EMBEDDED
    base = str(EMBEDDED_BASE) if embedded else resolve(model)
    served = Model(
        base, adapter_root or EMBEDDED_ADAPTERS, adapter or (EMBEDDED_ADAPTER if embedded else None)
    )
    chosen, cpu = defaults_for(base), find_cpu()
    default = Setting(chosen.threads, chosen.dtype)
    settings = settings_to_try(default, cpu.cores, bool(cpu.flags & BF16_FLAGS))
    with progress_bar("tuning") as on_step, tempfile.TemporaryDirectory(prefix="lora-compose-tune-") as home:
        tried = try_all(settings, served, started(served, Path(home), context.args), on_step)
    best = best_of(tried, default)
    _show(tried, best, default, str(EMBEDDED_BASE) if embedded else model, as_json=as_json)
    raise typer.Exit(0 if best else 1)


def _show(tried: Sequence[Tried], best: Tried | None, default: Setting, model: str, *, as_json: bool) -> None:
    command = None if best is None else best.setting.command(model)
    if as_json:
        chosen = None if best is None else best.to_json()
        rows = [one.to_json() for one in tried]
        facts = {"threads": default.threads, "dtype": default.dtype}
        echo_json({"settings": rows, "default": facts, "best": chosen, "command": command})
        return
    stdout().print(table_of(tried))
    typer.echo(sentence(tried, best, default, model))


def table_of(tried: Sequence[Tried]) -> Table:
    """A row for each setting."""
    table = Table(box=None, pad_edge=False)
    loads = list(dict.fromkeys(load for one in tried for load in one.speeds))
    for header in ("threads", "dtype", *(f"tokens/s, {load}" for load in loads), "memory GiB"):
        table.add_column(header, justify="left" if header == "dtype" else "right")
    for one in tried:
        speeds = [f"{one.speeds[load]:.0f}" if load in one.speeds else "failed" for load in loads]
        table.add_row(str(one.setting.threads), one.setting.dtype, *speeds, f"{one.memory / GIB:.1f}")
    return table


def sentence(tried: Sequence[Tried], best: Tried | None, default: Setting, model: str) -> str:
    """What to use, and how much it gains over the defaults."""
    if best is None:
        return f"No setting could be measured: {tried[0].failure}"
    if best.setting == default:
        return f"Use the defaults: lora-compose serve --model {model}"
    own = next((one.speed for one in tried if one.setting == default), 0.0)
    gain = f", {best.speed / own:.2f} times the speed of the defaults" if own else ""
    return f"Use: {best.setting.command(model)}{gain}"
