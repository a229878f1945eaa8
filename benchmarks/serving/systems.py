"""The servers of a run: one that is up, or ours, stock vLLM and transformers + PEFT started for it.

What has no composing server gets: the exact sum of some adapters, or a merge, as one PEFT directory.
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
from lora_compose.benchmarks.servers import (
    direct_command,
    is_cpu_build,
    our_command,
    running,
    stock_command,
    stock_environment,
)
from lora_compose.benchmarks.serving.results.document import AdapterVersion
from lora_compose.benchmarks.serving.results.plan import FUSED, Arm, Plan, Serves, choices, model_of
from lora_compose.server.client.http import Client
from lora_compose.server.client.process import free_port


def write_sum(members: Sequence[str], root: Path, home: Path) -> Path:
    """The exact stack of the adapters in `root/<name>`, under `home`; written once."""
    directory = home / "-".join(members)
    if not directory.exists():
        asked = parse("+".join(members))
        export(asked, find_members(asked, {name: root / name for name in members}, home), directory)
    return directory


def write_random(like: Path, rank: int, directory: Path, seed: int) -> None:
    """An adapter of `rank` on the modules that `like` has. What it says is noise, what it costs is not."""
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
"""What vLLM takes as --max-lora-rank."""


@dataclass(frozen=True)
class SystemsUnderTest:
    """Where each kind of server listens, and the adapters."""

    urls: Mapping[Serves, str]
    base: str
    adapters: tuple[AdapterVersion, ...]
    generated: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Names of generated adapters by rank."""
    commands: Mapping[str, Sequence[str]] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    """Arms that cannot be measured here, and why."""
    sums: frozenset[str] = frozenset()
    """What the other servers have."""
    root: Path | None = None
    """Where the adapters lie, if we started the servers."""
    api_key: str | None = None

    def models(self, arm: Arm, plan: Plan) -> list[str]:
        """What the arm's requests ask for, one for each composition."""
        return [self._model(arm, members, plan) for members in self.members(arm, plan)]

    def members(self, arm: Arm, plan: Plan) -> list[tuple[str, ...]]:
        """The adapters of each composition, by id."""
        ids = [one.id for one in self.adapters]
        if arm.rank is not None:
            return [self.generated[arm.rank][: arm.members]]
        if not arm.members or arm.kind == "residual":
            return [()] * plan.compositions
        return choices(ids, arm.members, plan.compositions)

    def fused_model(self, arm: Arm) -> str:
        """What is folded into the base while the arm is measured: the first adapters."""
        return "+".join(one.id for one in self.adapters[: arm.members])

    def sum_name(self, members: Sequence[str]) -> str:
        """What the other servers know a sum by."""
        return sum_name(members) if members else self.base

    def _model(self, arm: Arm, members: Sequence[str], plan: Plan) -> str:
        if arm.server == "lora-compose":
            return model_of(arm, self.base, members, plan.merge)
        return self.sum_name(members)


def sum_name(members: Sequence[str]) -> str:
    """What the other servers know a sum by."""
    return "-".join(member.partition("@")[0] for member in members)


def _version(adapter: Mapping[str, Any]) -> AdapterVersion:
    return AdapterVersion(id=adapter["id"], digest=adapter.get("digest"), rank=adapter.get("rank"))


def running_targets(
    url: str, names: Sequence[str], plan: Plan, api_key: str | None, may_fuse: bool
) -> SystemsUnderTest:
    """A server that is up, with the adapters it has. Nothing is registered, and fused only if allowed."""
    with Client(url, api_key) as client:
        base = client.models()[0]["id"]
        given = list(names) or [one["id"].partition("@")[0] for one in client.adapters()]
        adapters = tuple(_version(client.adapter(name)) for name in dict.fromkeys(given))
    skipped = {}
    for arm in plan.all_arms:
        if arm.server != "lora-compose":
            skipped[arm.name] = "needs servers of its own: leave out --url"
        elif arm.kind in FUSED and not may_fuse:
            skipped[arm.name] = "would fuse for everybody: --allow-fuse"
        elif arm.members > len(adapters):
            skipped[arm.name] = f"needs {arm.members} adapters, there are {len(adapters)}"
    return SystemsUnderTest({"lora-compose": url}, base, adapters, skipped=skipped, api_key=api_key)


@contextmanager
def started_targets(
    plan: Plan, model: str, root: Path, names: Sequence[str], home: Path, options: Sequence[str]
) -> Iterator[SystemsUnderTest]:
    """Every server the arms need, up and with its adapters, for as long as the context is open.

    Raises InvalidRequest("too_few_adapters"); LoraComposeError("server_not_ready")."""
    most = max((arm.members for arm in plan.all_arms), default=0)
    if most > len(names):
        raise InvalidRequest(Code.TOO_FEW_ADAPTERS, f"{most} --adapters are needed, these are {len(names)}")
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
    commands = _commands(plan, model, ranks, sums, home, options)
    with ExitStack() as stack:
        servers = {}
        for name, (command, port) in commands.items():
            environment = stock_environment() if name == "vllm" else None
            servers[name] = stack.enter_context(running(command, port, home / f"{name}.log", environment))
        for server in servers.values():
            server.wait_until_ready()
        urls = {name: server.url for name, server in servers.items()}
        with Client(urls["lora-compose"]) as client:
            everything = [*names, *(name for group in generated.values() for name in group)]
            found = {n: client.register({"name": n, "path": str(ours_root / n)}) for n in everything}
            base = client.models()[0]["id"]
        if "vllm" in urls:
            _load(urls["vllm"], sums)
        yield SystemsUnderTest(
            urls,  # type: ignore[arg-type]
            base,
            tuple(_version(found[name]) for name in names),
            {rank: tuple(found[name]["id"] for name in group) for rank, group in generated.items()},
            {name: tuple(command) for name, (command, _) in commands.items()},
            sums=frozenset(sums),
            root=ours_root,
        )


def _commands(
    plan: Plan,
    model: str,
    ranks: Mapping[Serves, int],
    sums: Mapping[str, Path],
    home: Path,
    options: Sequence[str],
) -> dict[str, tuple[list[str], int]]:
    """Command and port of each server that an arm needs; ours always."""
    wanted = {"lora-compose", *(arm.server for arm in plan.all_arms)}
    found = {}
    port = free_port()
    mine = ["--max-lora-rank", str(ranks["lora-compose"]), *options]
    found["lora-compose"] = our_command(port, model, home, home / "adapters", mine), port
    if "direct" in wanted:
        port = free_port()
        found["direct"] = direct_command(port, model, is_cpu_build(), mine), port
    if "vllm" in wanted:
        port = free_port()
        stock = stock_command(port, model, is_cpu_build())
        found["vllm"] = [*stock, "--max-lora-rank", str(ranks["vllm"]), *options], port
    if "peft" in wanted:
        port, listed = free_port(), home / "sums.json"
        listed.write_text(json.dumps({name: str(path) for name, path in sums.items()}))
        module = [sys.executable, "-m", "lora_compose.benchmarks.serving.peft_server", "--base", model]
        found["peft"] = [*module, "--port", str(port), "--adapters", str(listed)], port
    return found


def _ranks_needed(plan: Plan, root: Path, names: Sequence[str]) -> dict[Serves, int]:
    """The least each server can be started with: stock vLLM computes at its maximum, whatever is used."""
    own = sorted((open_adapter(root / name).rank for name in names), reverse=True)
    needed: dict[Serves, int] = {"lora-compose": 64, "vllm": 1}
    for arm in plan.all_arms:
        needed[arm.server] = max(needed.get(arm.server, 1), sum(own[: arm.members]))
    for arm in plan.heat_arms:
        needed["lora-compose"] = max(needed["lora-compose"], arm.members * (arm.rank or 0))
    return {server: next((r for r in RANKS if r >= rank), RANKS[-1]) for server, rank in needed.items()}


def _copy_links(root: Path, names: Sequence[str], ours: Path) -> None:
    """Into the one folder our server may read: links would lead out of it, and are refused."""
    for name in names:
        shutil.copytree(root / name, ours / name)


def _generate(plan: Plan, like: Path, root: Path) -> dict[int, list[str]]:
    most = max(plan.heat_members, default=0)
    made = {rank: [f"rank{rank}-{number}" for number in range(most)] for rank in plan.ranks}
    for rank, group in made.items():
        for number, name in enumerate(group):
            write_random(like, rank, root / name, seed=number)
    return made


def _load(url: str, sums: Mapping[str, Path]) -> None:
    for name, path in sums.items():
        asked = {"lora_name": name, "lora_path": str(path)}
        httpx.post(f"{url}/v1/load_lora_adapter", json=asked, timeout=120).raise_for_status()
