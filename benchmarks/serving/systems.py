"""The systems under test: a running server, or servers that are started for the run.

Our server, stock vLLM, transformers + PEFT and llama.cpp's server can be started. Stock vLLM and PEFT cannot
compose adapters, so they get the exact sum of the adapters as one PEFT directory.
"""

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import torch

from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import Code, InvalidRequest
from lora_compose.adapters.export import export, find_members
from lora_compose.adapters.peft.checkpoint import Lora, LoraModule, open_adapter, write_adapter
from lora_compose.benchmarks.llamacpp.server import request_body
from lora_compose.benchmarks.servers import (
    direct_command,
    our_command,
    running,
    stock_command,
    stock_environment,
)
from lora_compose.benchmarks.serving.llamacpp_system import LlamaCpp
from lora_compose.benchmarks.serving.load import Sending
from lora_compose.benchmarks.serving.results.document import AdapterVersion
from lora_compose.benchmarks.serving.results.plan import (
    FUSED,
    WEIGHTED,
    Arm,
    Plan,
    Serves,
    choices,
    model_of,
    weighted,
)
from lora_compose.server.client.http import Client
from lora_compose.server.client.process import free_port
from lora_compose.server.cpu_defaults import is_cpu_build


def write_sum(members: Sequence[str], root: Path, home: Path) -> Path:
    """Write the exact sum of the adapters in `root/<name>` under `home`, unless it is there already."""
    directory = home / "-".join(members)
    if not directory.exists():
        stack = parse("+".join(members))
        export(stack, find_members(stack, {name: root / name for name in members}, home), directory)
    return directory


def write_random(like: Path, rank: int, directory: Path, seed: int) -> None:
    """Write an adapter of `rank` with random weights, on the modules of the adapter `like`."""
    draw = torch.Generator().manual_seed(seed)
    modules = {}
    for name, module in open_adapter(like).modules.items():
        d_out, d_in = module.shape
        modules[name] = LoraModule(
            0.02 * torch.randn(rank, d_in, generator=draw),
            0.02 * torch.randn(d_out, rank, generator=draw),
            1.0,
        )
    directory.mkdir(parents=True)
    write_adapter(Lora(modules), directory, "")


RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM accepts for --max-lora-rank."""


@dataclass(frozen=True)
class SystemsUnderTest:
    """The servers that are measured, and their adapters."""

    urls: Mapping[Serves, str]
    base: str
    adapters: tuple[AdapterVersion, ...]
    generated: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Names of generated adapters by rank."""
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Arms that cannot be measured here, with the reasons."""
    sums: frozenset[str] = frozenset()
    """Names of the exact sums that stock vLLM and PEFT serve."""
    root: Path | None = None
    """Directory of the adapters, if this run started the servers."""
    api_key: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of servers that are not Python packages."""

    def models(self, arm: Arm, plan: Plan) -> list[str]:
        """The `model` of the arm's requests, for each composition."""
        return [self._model(arm, members, plan) for members in self.members(arm, plan)]

    def members(self, arm: Arm, plan: Plan) -> list[tuple[str, ...]]:
        """The ids of the adapters of each composition."""
        ids = [adapter.id for adapter in self.adapters]
        if arm.rank is not None:
            return [self.generated[arm.rank][: arm.members]]
        if not arm.members or arm.kind == "residual":
            return [()] * plan.compositions
        sets = weighted if arm.kind in WEIGHTED else choices
        return sets(ids, arm.members, plan.compositions)

    def fused_model(self, arm: Arm) -> str:
        """The stack that is fused while the arm is measured. It has the first adapters."""
        return "+".join(adapter.id for adapter in self.adapters[: arm.members])

    def sum_name(self, members: Sequence[str]) -> str:
        """The name of a sum, or of the base, on stock vLLM and PEFT."""
        return sum_name(members) if members else self.base

    def _model(self, arm: Arm, members: Sequence[str], plan: Plan) -> str:
        if arm.server == "lora-compose":
            return model_of(arm, self.base, members, plan.merge)
        return "+".join(members) if arm.server == "llamacpp" else self.sum_name(members)

    def sending(self, arm: Arm, body: dict[str, Any]) -> Sending:
        """A request as the arm's server understands it."""
        if arm.server != "llamacpp":
            return Sending(body)
        names = [adapter.id.partition("@")[0] for adapter in self.adapters]
        return Sending(request_body(body, names), ids_as_text=True)


@dataclass(frozen=True)
class Where:
    """The servers to measure: the URL of a running server, or what is needed to start servers."""

    url: str | None
    names: tuple[str, ...]
    model: str
    root: Path
    options: tuple[str, ...] = ()
    api_key: str | None = None
    may_fuse: bool = False
    llama_server: Path | None = None
    """llama.cpp's server. None: the one on the PATH."""


def sum_name(members: Sequence[str]) -> str:
    """The name of a sum on stock vLLM and PEFT."""
    return "-".join(member.partition("@")[0] for member in members)


def _version(adapter: Mapping[str, Any]) -> AdapterVersion:
    return AdapterVersion(id=adapter["id"], digest=adapter.get("digest"), rank=adapter.get("rank"))


def running_systems(
    url: str, names: Sequence[str], plan: Plan, api_key: str | None, may_fuse: bool
) -> SystemsUnderTest:
    """A running server with its adapters.

    No adapter is registered, and nothing is fused unless `may_fuse`.
    """
    with Client(url, api_key) as client:
        base = client.models()[0]["id"]
        chosen = list(names) or [adapter["id"].partition("@")[0] for adapter in client.adapters()]
        adapters = tuple(_version(client.adapter(name)) for name in dict.fromkeys(chosen))
    skipped = {}
    for arm in plan.all_arms:
        if arm.server != "lora-compose":
            skipped[arm.name] = "it needs another server; leave out --url to start one"
        elif arm.kind in FUSED and not may_fuse:
            skipped[arm.name] = "it would fuse for all clients; --allow-fuse permits this"
        elif arm.members > len(adapters):
            skipped[arm.name] = f"it needs {arm.members} adapters, and the server has {len(adapters)}"
    return SystemsUnderTest({"lora-compose": url}, base, adapters, skipped=skipped, api_key=api_key)


@contextmanager
def started_systems(plan: Plan, where: Where, home: Path) -> Iterator[SystemsUnderTest]:
    """Starts every server that the arms need, with its adapters. They are stopped when the context closes.

    Raises InvalidRequest("too_few_adapters"), or LoraComposeError: llamacpp_unavailable, server_not_ready.
    """
    model, root, names = where.model, where.root, where.names
    most = max((arm.members for arm in plan.all_arms), default=0)
    if most > len(names):
        raise InvalidRequest(
            Code.TOO_FEW_ADAPTERS, f"The arms need {most} adapters, but --adapters names {len(names)}."
        )
    llamacpp = None
    if any(arm.server == "llamacpp" for arm in plan.all_arms):
        llamacpp = LlamaCpp.checked(where.llama_server, model, {name: root / name for name in names})
    ranks = _ranks_needed(plan, root, names)
    ours_root = home / "adapters"
    _copy_links(root, names, ours_root)
    generated = _generate(plan, root / names[0], ours_root)
    sums = {
        sum_name(members): write_sum(members, root, home / "sums")
        for arm in plan.all_arms
        if arm.server in {"vllm", "peft"}
        for members in choices(list(names), arm.members, plan.compositions)
    }
    commands = _commands(plan, model, ranks, sums, home, where.options)
    with ExitStack() as stack:
        servers = {}
        for name, (command, port) in commands.items():
            environment = stock_environment() if name == "vllm" else None
            servers[name] = stack.enter_context(
                running(command, model, port, home / f"{name}.log", environment)
            )
        for server in servers.values():
            server.wait_until_ready()
        urls = {name: server.url for name, server in servers.items()}
        with Client(urls["lora-compose"]) as client:
            everything = [*names, *(name for group in generated.values() for name in group)]
            registered = {n: client.register({"name": n, "path": str(ours_root / n)}) for n in everything}
            base = client.models()[0]["id"]
        if "vllm" in urls:
            _load(urls["vllm"], sums)
        shown: dict[str, Sequence[str]] = {name: tuple(command) for name, (command, _) in commands.items()}
        if llamacpp is not None:
            started = llamacpp.started(home / "llamacpp", urls["lora-compose"], plan)
            peer, shown["llamacpp"] = stack.enter_context(started)
            urls["llamacpp"] = peer.url
        yield SystemsUnderTest(
            urls,  # type: ignore[arg-type]
            base,
            tuple(_version(registered[name]) for name in names),
            {rank: tuple(registered[name]["id"] for name in group) for rank, group in generated.items()},
            shown,
            sums=frozenset(sums),
            root=ours_root,
            versions={} if llamacpp is None else {"llama-server": llamacpp.version},
        )


def _commands(
    plan: Plan,
    model: str,
    ranks: Mapping[Serves, int],
    sums: Mapping[str, Path],
    home: Path,
    options: Sequence[str],
) -> dict[str, tuple[list[str], int]]:
    """Command and port of each server that an arm needs. Our own server is always included."""
    needed = {"lora-compose", *(arm.server for arm in plan.all_arms)}  # llama.cpp's is started later
    commands = {}
    port = free_port()
    our_options = ["--max-lora-rank", str(ranks["lora-compose"]), *options]
    commands["lora-compose"] = our_command(port, model, home, home / "adapters", our_options), port
    if "direct" in needed:
        port = free_port()
        commands["direct"] = direct_command(port, model, is_cpu_build(), our_options), port
    if "vllm" in needed:
        port = free_port()
        stock = stock_command(port, model, is_cpu_build())
        commands["vllm"] = [*stock, "--max-lora-rank", str(ranks["vllm"]), *options], port
    if "peft" in needed:
        port, listed = free_port(), home / "sums.json"
        listed.write_text(json.dumps({name: str(path) for name, path in sums.items()}))
        module = [sys.executable, "-m", "lora_compose.benchmarks.serving.peft_server", "--base", model]
        commands["peft"] = [*module, "--port", str(port), "--adapters", str(listed)], port
    return commands


def _ranks_needed(plan: Plan, root: Path, names: Sequence[str]) -> dict[Serves, int]:
    """The smallest --max-lora-rank of each server that is enough.

    Stock vLLM always computes at its maximum.
    """
    own = sorted((open_adapter(root / name).rank for name in names), reverse=True)
    needed: dict[Serves, int] = {"lora-compose": 64, "vllm": 1}
    for arm in plan.all_arms:
        needed[arm.server] = max(needed.get(arm.server, 1), sum(own[: arm.members]))
    for arm in plan.heat_arms:
        needed["lora-compose"] = max(needed["lora-compose"], arm.members * (arm.rank or 0))
    return {server: next((r for r in RANKS if r >= rank), RANKS[-1]) for server, rank in needed.items()}


def _copy_links(root: Path, names: Sequence[str], ours: Path) -> None:
    """Copy the adapters into the folder that our server may read. It refuses links that lead out of it."""
    for name in names:
        shutil.copytree(root / name, ours / name)


def _generate(plan: Plan, like: Path, root: Path) -> dict[int, list[str]]:
    most = max(plan.heat_members, default=0)
    names = {rank: [f"rank{rank}-{number}" for number in range(most)] for rank in plan.ranks}
    for rank, group in names.items():
        for number, name in enumerate(group):
            write_random(like, rank, root / name, seed=number)
    return names


def _load(url: str, sums: Mapping[str, Path]) -> None:
    for name, path in sums.items():
        request = {"lora_name": name, "lora_path": str(path)}
        httpx.post(f"{url}/v1/load_lora_adapter", json=request, timeout=120).raise_for_status()
