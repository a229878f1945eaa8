"""One run: warm every composition up, learn what its answers are, then passes in turn (A B C, C B A, …).

What comes out is plain data for the result's JSON; what it means is found by `findings`, from that alone.

Fusing and restoring while arms are measured, and what a switch takes.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Literal

import httpx

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.benchmarks.client import open_client
from lora_compose.benchmarks.serving.expected_answers import Exact, Expected, ask_alone, difference, exactly
from lora_compose.benchmarks.serving.load import (
    Sending,
    Words,
    body,
    planned,
    prompt_pool,
    send_one,
    send_pass,
    workload_digest,
)
from lora_compose.benchmarks.serving.results.document import (
    DECIMALS,
    Difference,
    FirstUse,
    Pass,
    RequestRow,
    Switch,
    UnlikeBase,
)
from lora_compose.benchmarks.serving.results.plan import EXACT, FUSED, Arm, Cell, Plan, Serves
from lora_compose.benchmarks.serving.systems import SystemsUnderTest
from lora_compose.server.client.http import Client


@asynccontextmanager
async def fused(url: str, api_key: str | None, model: str, told: list[Switch]) -> AsyncIterator[None]:
    """`model` is folded into the base inside; the base is restored however it is left."""
    await _timed("fuse", url, api_key, model, told)
    try:
        yield
    finally:
        await _timed("restore", url, api_key, None, told)


async def _timed(
    what: Literal["fuse", "restore"], url: str, api_key: str | None, model: str | None, told: list[Switch]
) -> None:
    began = perf_counter()
    await asyncio.to_thread(_switch, url, api_key, model)
    told.append(Switch(what=what, model=model, seconds=perf_counter() - began))


def _switch(url: str, api_key: str | None, model: str | None) -> None:
    with Client(url, api_key) as client:
        if model is None:
            client.restore_base()
        else:
            client.fuse(model)


OPEN_LOOP_CONNECTIONS = 512
CALIBRATION_SHARES = (0.3, 0.6, 0.9)
Told = Callable[[int, int, str], None]
Group = tuple[Arm, ...]


@dataclass
class Measured:
    """All that a run saw."""

    plan: Plan
    workload_digest: str = ""
    passes: list[Pass] = field(default_factory=list)
    cold: list[FirstUse] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    unlike_base: list[UnlikeBase] = field(default_factory=list)
    """How many prompts each composition answers otherwise than the base: what a mix-up would show by."""
    loads: list[tuple[float, float, float]] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)
    """Parts that the server refused, and why."""
    truncated: bool = False
    """Whether --max-seconds ended it early."""


class Measuring:
    """The clients of one run, its prompts, and what each arm's answers must be."""

    def __init__(
        self, targets: SystemsUnderTest, plan: Plan, clients: Mapping[Serves, httpx.AsyncClient], told: Told
    ) -> None:
        self._targets = targets
        self._clients = clients
        self._told = told
        self._pool: list[list[int]] = []
        self._expected: dict[tuple[str, tuple[str, ...]], list[Expected]] = {}
        self._exact: dict[tuple[str, ...], Exact] = {}
        self._began = perf_counter()
        self._done = 0
        self._refused: set[Group] = set()
        self.measured = Measured(plan)

    @property
    def plan(self) -> Plan:
        """With the rates that calibration found."""
        return self.measured.plan

    async def run(self, words: Words) -> Measured:
        """Everything but the timeline."""
        self._pool = prompt_pool(self.plan, words)
        arms = [arm for arm in self.plan.all_arms if arm.name not in self._targets.skipped]
        for arm in [*arms, *self.plan.heat_arms]:
            if arm.kind not in FUSED:
                await self._prepare(arm)
            elif arm.members:
                await self._exactly(self._members(arm)[0])  # while the base is plain
        await self._calibrate()
        self.measured.workload_digest = workload_digest(self.plan, self._pool)
        groups = list(in_groups(arms))
        self.measured.loads.append(os.getloadavg())
        for repeat in range(self.plan.repeats):
            for cell in self.plan.cells():
                for group in groups if repeat % 2 == 0 else reversed(groups):
                    await self._group(cell, group, repeat)
            await self._heat(repeat)
            self.measured.loads.append(os.getloadavg())
        return self.measured

    def steps(self) -> int:
        """Passes in all, for a progress bar."""
        arms = len([arm for arm in self.plan.all_arms if arm.name not in self._targets.skipped])
        heat = len(self.plan.heat_arms) + 1 if self.plan.heat_arms else 0
        loads = len(self.plan.concurrency) + (len(self.plan.rates) or len(CALIBRATION_SHARES))
        return self.plan.repeats * (loads * arms + heat)

    async def _prepare(self, arm: Arm) -> None:
        """First use, what it answers alone, and how far that is from the exact stack."""
        for model, members in zip(
            self._targets.models(arm, self.plan), self._targets.members(arm, self.plan), strict=True
        ):
            self._told(self._done, self.steps(), f"warming up {arm.name}")
            await self._first_use(arm, model)
            own = await ask_alone(self._clients[arm.server], model, self._pool, self.plan.output_tokens)
            expected = await self._witnessed(arm, members, own)
            if members and not arm.rank and arm.server == "lora-compose":
                exact = await self._exactly(members)
                found = await difference(
                    self._clients["lora-compose"], arm.name, model, self._pool, own, exact
                )
                self.measured.differences.append(found)
            self._expected[arm.name, members] = expected
            self._note_unlike_base(arm, model, expected)

    async def _first_use(self, arm: Arm, model: str) -> None:
        """Twice the same: the first has all that a composition needs once in it."""
        seconds = []
        for number in range(2):
            asked = body(model, self._pool[0], 2, f"first-{len(self.measured.cold)}-{number}")
            row = await send_one(self._clients[arm.server], asked)
            if row.failure or not row.times:
                raise RuntimeError(f"{arm.name} ({model}) cannot be measured: {row.failure}")
            seconds.append(row.times[0])
        self.measured.cold.append(
            FirstUse(arm=arm.name, model=model, first_use_ttft=seconds[0], warm_ttft=seconds[1])
        )

    async def _witnessed(self, arm: Arm, members: tuple[str, ...], own: list[Expected]) -> list[Expected]:
        """For what is exact the answers of transformers + PEFT, where they run; else what it says alone."""
        witness = self._clients.get("peft")
        known = self._targets.sums
        if witness is None or arm.rank or arm.kind not in EXACT:
            return own
        name = self._targets.sum_name(members)
        if members and name not in known:
            return own
        key = ("witness", members)
        if key not in self._expected:
            self._expected[key] = await ask_alone(witness, name, self._pool, self.plan.output_tokens)
        return self._expected[key]

    def _note_unlike_base(self, arm: Arm, model: str, expected: Sequence[Expected]) -> None:
        base = next(iter(self._expected.values()))  # the first that was asked
        if arm.members and arm.kind != "residual":
            unlike = sum(not one.accepts(own.ids) for one, own in zip(expected, base, strict=True))
            self.measured.unlike_base.append(UnlikeBase(arm=arm.name, model=model, prompts=unlike))

    async def _exactly(self, members: tuple[str, ...]) -> Exact:
        """What the exact stack of `members` says; asked for once, before anything is fused."""
        if members and members not in self._exact:
            model, tokens = "+".join(members), self.plan.output_tokens
            self._exact[members] = await exactly(self._clients["lora-compose"], model, self._pool, tokens)
        return self._exact.get(members, Exact())

    async def _calibrate(self) -> None:
        """Without --rates: shares of the requests a second that the base alone answers in a closed loop."""
        if self.plan.rates:
            return
        cell = Cell("closed", concurrency=max(self.plan.concurrency, default=4))
        arm = self.plan.all_arms[0]
        await self._send(arm, cell, repeat=-2)
        rows, seconds = await self._send(arm, cell, repeat=-1)
        rate = sum(row.failure is None for row in rows) / seconds
        shares = CALIBRATION_SHARES if len(self.plan.concurrency) > 1 else CALIBRATION_SHARES[1:2]
        rates = tuple(dict.fromkeys(float(f"{share * rate:.2g}") for share in shares))
        self.measured.plan = replace(self.plan, rates=rates)

    async def _group(self, cell: Cell, group: Group, repeat: int) -> None:
        """Arms of one fused composition are measured inside one switch, any other alone."""
        if group in self._refused or self._is_late():
            return
        fused_arm = next((arm for arm in group if arm.kind in FUSED), None)
        async with AsyncExitStack() as stack:
            if fused_arm is not None and not await self._fuse(fused_arm, group, stack):
                return
            for arm in group:
                if fused_arm is not None and (arm.name, self._members(arm)[0]) not in self._expected:
                    await self._prepare(arm)
                if fused_arm is not None:
                    await self._send(arm, cell, repeat=-1)  # what a switch drops is warm again
                await self._pass(cell, arm, repeat)

    async def _fuse(self, arm: Arm, group: Group, stack: AsyncExitStack) -> bool:
        """Fuse until `stack` is closed. A refusal is a caveat, and the group is not tried again."""
        model, url = self._targets.fused_model(arm), self._targets.urls["lora-compose"]
        switch = fused(url, self._targets.api_key, model, self.measured.switches)
        try:
            await stack.enter_async_context(switch)
        except LoraComposeError as error:
            names = ", ".join(arm.name for arm in group)
            self.measured.caveats.append(f"{names}: the server refused to fuse {model}: {error}")
            self._refused.add(group)
            return False
        return True

    def _members(self, arm: Arm) -> list[tuple[str, ...]]:
        return self._targets.members(arm, self.plan)

    async def _heat(self, repeat: int) -> None:
        """Stacks of generated adapters against the base, all in one block."""
        if not self.plan.heat_arms:
            return
        for arm in (self.plan.all_arms[0], *self.plan.heat_arms):
            if not self._is_late():
                await self._pass(self.plan.heat_cell, arm, repeat)

    async def _pass(self, cell: Cell, arm: Arm, repeat: int) -> None:
        self._told(self._done, self.steps(), f"{cell.id}: {arm.name}")
        began = perf_counter() - self._began
        rows, seconds = await self._send(arm, cell, repeat)
        self._done += 1
        members = self._members(arm)
        for row in rows:
            expected = self._expected[arm.name, members[row.composition]][row.prompt]
            if row.failure is None and not expected.accepts(row.ids):
                row.failure = "wrong_answer"
        self.measured.passes.append(
            Pass(
                cell=cell,
                arm=arm.name,
                repeat=repeat,
                began=round(began, DECIMALS),
                seconds=round(seconds, DECIMALS),
                rows=[row.for_file() for row in rows],
            )
        )

    async def _send(self, arm: Arm, cell: Cell, repeat: int) -> tuple[list[RequestRow], float]:
        models = self._targets.models(arm, self.plan)
        sendings = []
        for one in planned(self.plan, cell, repeat):
            composition = 0 if arm.rank else one.composition
            asked = body(models[composition], self._pool[one.prompt], self.plan.output_tokens, one.salt)
            sendings.append(Sending(asked, composition, one.prompt, one.due))
        return await send_pass(self._clients[arm.server], sendings, cell.concurrency)

    def _is_late(self) -> bool:
        limit = self.plan.max_seconds
        late = limit is not None and perf_counter() - self._began > limit
        self.measured.truncated |= late
        return late


def in_groups(arms: Sequence[Arm]) -> Iterator[Group]:
    """Each arm alone, but those that need the same composition fused together."""
    for arm in arms:
        if arm.kind not in FUSED:
            yield (arm,)
    for count in sorted({arm.members for arm in arms if arm.kind in FUSED}):
        yield tuple(arm for arm in arms if arm.kind in FUSED and arm.members == count)


@asynccontextmanager
async def measuring(targets: SystemsUnderTest, plan: Plan, told: Told) -> Any:
    """A Measuring with connections to every server."""
    async with AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(open_client(url, OPEN_LOOP_CONNECTIONS, targets.api_key))
            for name, url in targets.urls.items()
        }
        yield Measuring(targets, plan, clients, told)
