"""`lora-compose fuse`: fuses a composition into a running server, shows the state, or restores the base."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Annotated, Any

import typer

from lora_compose.adapters.command_line import DEFAULT_URL, ApiKey, AsJson, Url, echo_json
from lora_compose.adapters.terminal import progress_bar
from lora_compose.server.client.http import Client

POLL_SECONDS = 0.1


def fuse(
    composition: Annotated[
        str | None,
        typer.Argument(
            help="The composition to fuse. Without it the fused composition is shown.", metavar="COMPOSITION"
        ),
    ] = None,
    restore: Annotated[
        bool, typer.Option("--restore", help="Restore the plain base weights, bit for bit.")
    ] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Fold a composition into the running base weights. Its requests then need no LoRA work at all.

    All other compositions are still served, as the difference to the fused one. Restoring is exact. Requests
    in flight wait for the switch and then continue.

    - `lora-compose fuse` shows the fused composition
    - `lora-compose fuse roll+upper` fuses a stack, in place of the one that is fused now
    - `lora-compose fuse "svd(roll+upper,rank=8)"` fuses a merge
    - `lora-compose fuse --restore` restores the base
    """
    if restore and composition is not None:
        raise typer.BadParameter("Give a COMPOSITION or --restore, but not both.")
    with Client(url, api_key) as client:
        if restore:
            state = _with_progress(client, "restoring the base", client.restore_base)
        elif composition is not None:
            state = _with_progress(client, f"fusing {composition}", lambda: client.fuse(composition))
        else:
            state = client.fusion()
    if as_json:
        echo_json(state)
    else:
        typer.echo(_summary(state))


def _with_progress(client: Client, title: str, switch: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run `switch`, with progress on stderr, because a large checkpoint takes time."""
    with ThreadPoolExecutor(1) as thread, progress_bar(title) as step:
        switching = thread.submit(switch)
        while wait([switching], POLL_SECONDS).not_done:
            step(round(100 * (client.fusion()["progress"] or 0.0)), 100, "%")
        return switching.result()


def _summary(state: dict[str, Any]) -> str:
    """One line with the state and the last switch."""
    fused = f"{state['model']} is fused" if state["model"] else f"nothing is fused ({state['state']})"
    last = state["last_switch"]
    if last is None:
        return fused
    stalled = f"generation was paused for {last['stalled_seconds']:.2f} s"
    return f"{fused}; the last switch took {last['seconds']:.2f} s, and {stalled}"
