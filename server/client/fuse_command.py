"""`lora-compose fuse`: fold a composition into the base of a running server, look, or restore."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from lora_compose.adapters.command_line import DEFAULT_URL, ApiKey, AsJson, Url, echo_json
from lora_compose.server.client.http import Client

POLL_SECONDS = 0.1


def fuse(
    composition: Annotated[
        str | None,
        typer.Argument(help="What to fuse; without it, what is fused is shown.", metavar="COMPOSITION"),
    ] = None,
    restore: Annotated[bool, typer.Option("--restore", help="Restore the plain base, to the bit.")] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Fold a composition into the running base: its requests then carry no LoRA work at all.

    Everything else is served at the same time, as the difference to it; restoring is exact. Requests in
    flight wait for the switch and go on.

    - `lora-compose fuse` shows what is fused
    - `lora-compose fuse roll+upper` fuses a stack, in place of what is fused now
    - `lora-compose fuse "svd(roll+upper,rank=8)"` fuses a merge
    - `lora-compose fuse --restore` restores the base
    """
    if restore and composition is not None:
        raise typer.BadParameter("give a COMPOSITION or --restore, not both")
    with Client(url, api_key) as client:
        if restore:
            state = _watched(client, "restoring the base", client.restore_base)
        elif composition is not None:
            state = _watched(client, f"fusing {composition}", lambda: client.fuse(composition))
        else:
            state = client.fusion()
    if as_json:
        echo_json(state)
    else:
        typer.echo(_summary(state))


def _watched(client: Client, what: str, switch: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Do it, with a progress bar on stderr: a large checkpoint takes a while."""
    screen = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with (
        ThreadPoolExecutor(1) as thread,
        Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar,
    ):
        task = bar.add_task(what, total=1.0)
        switching = thread.submit(switch)
        while wait([switching], POLL_SECONDS).not_done:
            bar.update(task, completed=client.fusion()["progress"] or 0.0)
        return switching.result()


def _summary(state: dict[str, Any]) -> str:
    """The state in one line."""
    what = f"{state['model']} is fused" if state["model"] else f"nothing is fused ({state['state']})"
    last = state["last_switch"]
    if last is None:
        return what
    stalled = f"generation stood still for {last['stalled_seconds']:.2f} s"
    return f"{what}; the last switch took {last['seconds']:.2f} s, {stalled}"
