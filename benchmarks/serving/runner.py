"""One run: warms up every composition, gets its expected answers, then measures the arms in turn.

The order of the arms is reversed in every second repeat (A B C, C B A, …). The fused arms are measured while
their composition is fused, and each switch is timed. The output is data for the result's JSON; `summarize`
computes all figures from it.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Literal

import httpx

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.benchmarks.client import open_client
from lora_compose.benchmarks.serving.expected_answers import (
    Exact,
    Expected,
    ask_alone,
    ask_exact_stack,
    difference,
)
from lora_compose.benchmarks.serving.load import (
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
from lora_compose.benchmarks.serving.results.plan import EXACT, FUSED, WEIGHTED, Arm, Cell, Plan, Serves
from lora_compose.benchmarks.serving.systems import SystemsUnderTest
from lora_compose.server.client.http import Client


@asynccontextmanager
async def fused(url: str, api_key: str | None, model: str, switches: list[Switch]) -> AsyncIterator[None]:
    """Fuse `model`, and restore the base when the context closes. Both switches are added to `switches`."""
    await _timed("fuse", url, api_key, model, switches)
    try:
        yield
    finally:
        await _timed("restore", url, api_key, None, switches)


async def _timed(
    what: Literal["fuse", "restore"],
    url: str,
    api_key: str | None,
    model: str | None,
    switches: list[Switch],
) -> None:
    began = perf_counter()
    await asyncio.to_thread(_switch, url, api_key, model)
    switches.append(Switch(what=what, model=model, seconds=perf_counter() - began))


def _switch(url: str, api_key: str | None, model: str | None) -> None:
    with Client(url, api_key) as client:
        if model is None:
            client.restore_base()
        else:
            client.fuse(model)


OPEN_LOOP_CONNECTIONS = 512
CALIBRATION_SHARES = (0.3, 0.6, 0.9)
OnProgress = Callable[[int, int, str], None]
Group = tuple[Arm, ...]


@dataclass
class Measured:
    """Everything that a run measured."""

    plan: Plan
    workload_digest: str = ""
    passes: list[Pass] = field(default_factory=list)
    cold: list[FirstUse] = field(default_factory=list)
    switches: list[Switch] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    unlike_base: list[UnlikeBase] = field(default_factory=list)
    """For each composition, the number of prompts that it answers differently from the base.

    If it is 0, answers that come from the base by mistake cannot be noticed."""
    loads: list[tuple[float, float, float]] = field(default_factory=list)
    caveats: list[str] = field(default_factory=list)
    """Parts of the run that the server refused, with the reasons."""
    truncated: bool = False
    """Whether --max-seconds ended the run early."""


class Runner:
    """Runs one plan. Holds the clients, the prompts and the expected answers."""

    def __init__(
        self,
        systems: SystemsUnderTest,
        plan: Plan,
        clients: Mapping[Serves, httpx.AsyncClient],
        on_progress: OnProgress,
    ) -> None:
        self._systems = systems
        self._clients = clients
        self._on_progress = on_progress
        self._pool: list[list[int]] = []
        self._expected: dict[tuple[str, tuple[str, ...]], list[Expected]] = {}
        self._exact: dict[tuple[str, ...], Exact] = {}
        self._began = perf_counter()
        self._done = 0
        self._refused: set[Group] = set()
        self.measured = Measured(plan)

    @property
    def plan(self) -> Plan:
        """The plan, with the rates that calibration measured."""
        return self.measured.plan

    async def run(self, words: Words) -> Measured:
        """Measure everything except the timeline."""
        self._pool = prompt_pool(self.plan, words)
        arms = [arm for arm in self.plan.all_arms if arm.name not in self._systems.skipped]
        for arm in [*arms, *self.plan.heat_arms]:
            if arm.kind not in FUSED:
                await self._prepare(arm)
            elif arm.members:
                await self._exact_answers(self._members(arm)[0])  # before anything is fused
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
        """Total number of passes, for a progress bar."""
        arms = len([arm for arm in self.plan.all_arms if arm.name not in self._systems.skipped])
        heat = len(self.plan.heat_arms) + 1 if self.plan.heat_arms else 0
        loads = len(self.plan.concurrency) + (len(self.plan.rates) or len(CALIBRATION_SHARES))
        return self.plan.repeats * (loads * arms + heat)

    async def _prepare(self, arm: Arm) -> None:
        """Measure the first use, get the expected answers, measure the difference from the exact stack."""
        for model, members in zip(
            self._systems.models(arm, self.plan), self._systems.members(arm, self.plan), strict=True
        ):
            self._on_progress(self._done, self.steps(), f"warming up {arm.name}")
            await self._first_use(arm, model)
            if arm.server == "llamacpp":
                self._expected[arm.name, members] = await self._right_answers(members)
                continue
            own = await ask_alone(self._clients[arm.server], model, self._pool, self.plan.output_tokens)
            expected = await self._expected_answers(arm, members, own)
            if members and not arm.rank and arm.server == "lora-compose":
                exact = await self._exact_answers(members)
                self.measured.differences.append(
                    await difference(self._clients["lora-compose"], arm.name, model, self._pool, own, exact)
                )
            self._expected[arm.name, members] = expected
            self._note_unlike_base(arm, model, expected)

    async def _first_use(self, arm: Arm, model: str) -> None:
        """Send one request twice. The first includes one-time costs (build, load), the second does not."""
        seconds = []
        for number in range(2):
            request = body(model, self._pool[0], 2, f"first-{len(self.measured.cold)}-{number}")
            row = await send_one(self._clients[arm.server], self._systems.sending(arm, request))
            if row.failure or not row.times:
                raise RuntimeError(
                    f"Arm {arm.name} cannot be measured. A request for {model} failed: {row.failure}"
                )
            seconds.append(row.times[0])
        self.measured.cold.append(
            FirstUse(arm=arm.name, model=model, first_use_ttft=seconds[0], warm_ttft=seconds[1])
        )

    async def _expected_answers(
        self, arm: Arm, members: tuple[str, ...], own: list[Expected]
    ) -> list[Expected]:
        """The answers of transformers + PEFT for an exact arm, if they are served; else the arm's own
        answers.
        """
        peft = self._clients.get("peft")
        known = self._systems.sums
        if peft is None or arm.rank or arm.kind not in EXACT or arm.kind in WEIGHTED:
            return own
        name = self._systems.sum_name(members)
        if members and name not in known:
            return own
        key = ("peft sums", members)
        if key not in self._expected:
            self._expected[key] = await ask_alone(peft, name, self._pool, self.plan.output_tokens)
        return self._expected[key]

    async def _right_answers(self, members: tuple[str, ...]) -> list[Expected]:
        """The answers of our base or exact stack, which llama.cpp's server must give too."""
        if not members:
            return self._expected["base", ()]
        return list((await self._exact_answers(members)).answers)

    def _note_unlike_base(self, arm: Arm, model: str, expected: Sequence[Expected]) -> None:
        base = next(iter(self._expected.values()))  # the base is always prepared first
        if arm.members and arm.kind != "residual":
            unlike = sum(
                not answer.accepts(base_answer.ids)
                for answer, base_answer in zip(expected, base, strict=True)
            )
            self.measured.unlike_base.append(UnlikeBase(arm=arm.name, model=model, prompts=unlike))

    async def _exact_answers(self, members: tuple[str, ...]) -> Exact:
        """The answers of the exact stack of `members`. They are requested once, before anything is fused."""
        if members and members not in self._exact:
            model, tokens = "+".join(members), self.plan.output_tokens
            client = self._clients["lora-compose"]
            self._exact[members] = await ask_exact_stack(client, model, self._pool, tokens)
        return self._exact.get(members, Exact())

    async def _calibrate(self) -> None:
        """Without --rates, use shares of the requests a second that the base answers in a closed loop."""
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
        """Measure the arms of `group`. If they need a fused composition, it is fused once for all of them."""
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
                    await self._send(arm, cell, repeat=-1)  # warm up again: a switch drops caches
                await self._pass(cell, arm, repeat)

    async def _fuse(self, arm: Arm, group: Group, stack: AsyncExitStack) -> bool:
        """Fuse until `stack` is closed. If the server refuses, add a caveat and never try the group again."""
        model, url = self._systems.fused_model(arm), self._systems.urls["lora-compose"]
        switch = fused(url, self._systems.api_key, model, self.measured.switches)
        try:
            await stack.enter_async_context(switch)
        except LoraComposeError as error:
            names = ", ".join(arm.name for arm in group)
            self.measured.caveats.append(f"{names}: the server refused to fuse {model}: {error}")
            self._refused.add(group)
            return False
        return True

    def _members(self, arm: Arm) -> list[tuple[str, ...]]:
        return self._systems.members(arm, self.plan)

    async def _heat(self, repeat: int) -> None:
        """Measure the base and all stacks of generated adapters, one after another."""
        if not self.plan.heat_arms:
            return
        for arm in (self.plan.all_arms[0], *self.plan.heat_arms):
            if not self._is_late():
                await self._pass(self.plan.heat_cell, arm, repeat)

    async def _pass(self, cell: Cell, arm: Arm, repeat: int) -> None:
        self._on_progress(self._done, self.steps(), f"{cell.id}: {arm.name}")
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
        models = self._systems.models(arm, self.plan)
        sendings = []
        for item in planned(self.plan, cell, repeat):
            composition = 0 if arm.rank else item.composition
            request = body(models[composition], self._pool[item.prompt], self.plan.output_tokens, item.salt)
            sending = self._systems.sending(arm, request)
            sendings.append(replace(sending, composition=composition, prompt=item.prompt, due=item.due))
        return await send_pass(self._clients[arm.server], sendings, cell.concurrency)

    def _is_late(self) -> bool:
        limit = self.plan.max_seconds
        late = limit is not None and perf_counter() - self._began > limit
        self.measured.truncated |= late
        return late


def in_groups(arms: Sequence[Arm]) -> Iterator[Group]:
    """Each arm alone, except that arms which need the same fused composition are in one group."""
    for arm in arms:
        if arm.kind not in FUSED:
            yield (arm,)
    for count in sorted({arm.members for arm in arms if arm.kind in FUSED}):
        yield tuple(arm for arm in arms if arm.kind in FUSED and arm.members == count)


@asynccontextmanager
async def open_runner(
    systems: SystemsUnderTest, plan: Plan, on_progress: OnProgress
) -> AsyncIterator[Runner]:
    """A Runner with connections to every server. They are closed with the context."""
    async with AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(open_client(url, OPEN_LOOP_CONNECTIONS, systems.api_key))
            for name, url in systems.urls.items()
        }
        yield Runner(systems, plan, clients, on_progress)
