"""One run: warms up every composition, gets its expected answers, then measures the arms in turn.

The order of the arms is reversed in every second repeat (A B C, C B A, …). The fused arms are measured while
their composition is fused, and each switch is timed. The output is data for the result's JSON; `summarize`
computes all figures from it.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from time import perf_counter

import httpx

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.benchmarks.client import open_client
from lora_compose.benchmarks.processors import ProcessorTimes, others_share
from lora_compose.benchmarks.serving.budget import Budget
from lora_compose.benchmarks.serving.expected_answers import (
    Exact,
    Expected,
    ask_alone,
    ask_exact_stack,
    difference,
)
from lora_compose.benchmarks.serving.fusing import fused
from lora_compose.benchmarks.serving.load import (
    Words,
    body,
    planned,
    prompt_pool,
    send_one,
    send_pass,
    workload_digest,
)
from lora_compose.benchmarks.serving.measured import Measured
from lora_compose.benchmarks.serving.results.document import (
    DECIMALS,
    FirstUse,
    Pass,
    RequestRow,
    UnlikeBase,
)
from lora_compose.benchmarks.serving.results.plan import EXACT, FUSED, WEIGHTED, Arm, Cell, Plan, Serves
from lora_compose.benchmarks.serving.systems import SystemsUnderTest

OPEN_LOOP_CONNECTIONS = 512
CALIBRATION_SHARES = (0.3, 0.6, 0.9)
OnProgress = Callable[[int, int | None, str], None]
"""Gets the passes that are done, how many there are (None: not known yet), and what is done now."""
Group = tuple[Arm, ...]


class Runner:
    """Runs one plan. Holds the clients, the prompts and the expected answers."""

    def __init__(
        self,
        systems: SystemsUnderTest,
        plan: Plan,
        clients: Mapping[Serves, httpx.AsyncClient],
        budget: Budget,
        on_progress: OnProgress,
    ) -> None:
        self._systems = systems
        self._clients = clients
        self._budget = budget
        self._arms = [arm for arm in plan.all_arms if arm.name not in systems.skipped]
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
        await self._prepare_all()
        await self._calibrate()
        self.measured.workload_digest = workload_digest(self.plan, self._pool)
        await self._note_load()
        for repeat in range(self.plan.repeats):
            began, times = perf_counter(), ProcessorTimes.now()
            if not self._allows("repeat"):
                break
            await self._repeat(repeat)
            self._budget.took("repeat", perf_counter() - began)
            self.measured.stolen.append(round(times.stolen_share(ProcessorTimes.now()), DECIMALS))
            await self._note_load()
        return self.measured

    async def _repeat(self, repeat: int) -> None:
        groups = list(in_groups(self._arms))
        for cell in self.plan.cells():
            for group in groups if repeat % 2 == 0 else reversed(groups):
                await self._group(cell, group, repeat)
        await self._heat(repeat)

    async def _note_load(self) -> None:
        """Note what other programs use, while nothing is sent."""
        self.measured.loads.append(os.getloadavg())
        self.measured.others_busy.append(round(await others_share(), DECIMALS))

    async def _prepare_all(self) -> None:
        """Prepare the arms in their order. Arms whose turn comes too late are left out."""
        for arm in [*self._arms, *self.plan.heat_arms]:
            if arm.kind != "base" and not self._budget.has_time_to_prepare():
                self._leave_out(arm)
            elif arm.kind not in FUSED:
                await self._prepare(arm)
            elif arm.members:
                await self._exact_answers(self._members(arm)[0])  # before anything is fused

    def _leave_out(self, arm: Arm) -> None:
        self.measured.left_out[arm.name] = "the time limit was too short to prepare it"
        self.measured.truncated = True
        self._arms = [kept for kept in self._arms if kept != arm]

    def steps(self) -> int:
        """Total number of passes, for a progress bar."""
        arms = len(self._arms)
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
        if group in self._refused:
            return
        fused_arm = next((arm for arm in group if arm.kind in FUSED), None)
        if not all(self._allows(_pass_name(cell, arm)) for arm in group):
            return
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
            if arm.name not in self.measured.left_out and self._allows(_pass_name(self.plan.heat_cell, arm)):
                await self._pass(self.plan.heat_cell, arm, repeat)

    async def _pass(self, cell: Cell, arm: Arm, repeat: int) -> None:
        self._on_progress(self._done, self.steps(), f"{cell.id}: {arm.name}")
        began = perf_counter() - self._began
        rows, seconds = await self._send(arm, cell, repeat)
        self._budget.took(_pass_name(cell, arm), seconds)
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

    def _allows(self, what: str) -> bool:
        """Whether there is time for `what`. If not, the result says that the run was cut short."""
        allowed = self._budget.allows(what)
        self.measured.truncated |= not allowed
        return allowed


def _pass_name(cell: Cell, arm: Arm) -> str:
    return f"{cell.id}/{arm.name}"


def in_groups(arms: Sequence[Arm]) -> Iterator[Group]:
    """The arms in their order. Arms that need the same fused composition are one group, at the first one's
    place.
    """
    groups: dict[object, list[Arm]] = {}
    for arm in arms:
        groups.setdefault(arm.members if arm.kind in FUSED else arm, []).append(arm)
    yield from map(tuple, groups.values())


@asynccontextmanager
async def open_runner(
    systems: SystemsUnderTest, plan: Plan, budget: Budget, on_progress: OnProgress
) -> AsyncIterator[Runner]:
    """A Runner with connections to every server. They are closed with the context."""
    async with AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(open_client(url, OPEN_LOOP_CONNECTIONS, systems.api_key))
            for name, url in systems.urls.items()
        }
        yield Runner(systems, plan, clients, budget, on_progress)
