"""The way from a request to a served composition, with a real registry and a hand-written engine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import NotFound, QuotaExceeded, Unservable
from lora_compose.adapters.registry.registry import Registry
from lora_compose.server.compositions.merges import MergeBuilder, MergedOn
from lora_compose.server.compositions.resolver import Resolver
from lora_compose.server.fusion.switch import FusionSwitch
from lora_compose.server.metrics import Metrics
from lora_compose.server.pipeline import CompositionPipeline
from lora_compose.server.residency.scheduler import ResidencyScheduler
from lora_compose.server.tenants.caller import Caller
from lora_compose.server.tenants.key import Key, Quotas
from lora_compose.server.tenants.quotas import Account
from tests.adapters.registries import register
from tests.server.residency.test_scheduler import Swept
from tests.server.test_fusion_faults import LoadingEngine


@dataclass(frozen=True)
class Bench:
    pipeline: CompositionPipeline
    engine: LoadingEngine

    @property
    def users(self) -> int:
        """The number of requests that hold a build."""
        return sum(entry.users for entry in self.pipeline.residency.cache.entries())


@asynccontextmanager
async def bench(home: Path) -> AsyncIterator[Bench]:
    """Adapters `a`, `b` and `acme-c` of rank 8, on an engine that takes rank 16."""
    engine, metrics = LoadingEngine(runtime_weights=True, max_loras=4), Metrics()
    with Registry(home) as registry, MergeBuilder(registry, MergedOn("base", Path(), "0"), metrics) as merges:
        for name in ("a", "b", "acme-c"):
            register(registry, name, name)
        resident = ResidencyScheduler(engine, 4, 4, metrics, Swept())
        fusion = FusionSwitch(engine, resident, metrics)
        yield Bench(CompositionPipeline("base", Resolver(registry, 16), merges, resident, fusion), engine)


def caller(*adapters: str, builds: int | None = None) -> Caller:
    quotas = Quotas(builds_per_hour=builds)
    return Caller(Key("k", "k", "inference", adapters or ("*",), quotas), Account(quotas))


async def test_a_body_and_a_composition_mean_the_same_versions(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        resolve = made.pipeline.resolve
        by_body = resolve({"model": "a:0.5+b"})
        assert by_body is not None
        assert by_body is resolve(parse("a:0.5+b"))
        assert (by_body.name, by_body.requested.canonical) == ("a@1:0.5+b@1", "a:0.5+b")
        assert resolve({"model": "base"}) is resolve({}) is None


async def test_a_caller_resolves_only_what_they_see_and_the_server_everything(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        assert made.pipeline.resolve({"model": "acme-c"}, caller("acme-*")) is not None
        with pytest.raises(NotFound):
            made.pipeline.resolve({"model": "a"}, caller("acme-*"))
        assert made.pipeline.resolve({"model": "a"}) is not None


async def test_too_high_a_rank_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        with pytest.raises(Unservable):
            made.pipeline.resolve({"model": "a+b+acme-c"})
        assert made.engine.built == []


async def test_what_is_ready_is_held_and_given_back_however_it_ends(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        resolved = made.pipeline.resolve(parse("a+b"))

        async def fail() -> None:
            async with made.pipeline.ready(resolved, caller()):
                assert (made.users, list(made.engine.exposed)) == (2, ["a@1+b@1"])
                raise RuntimeError("the client is gone")

        with pytest.raises(RuntimeError, match="the client is gone"):
            await fail()
        assert (made.users, made.engine.exposed) == (0, {})


async def test_a_caller_pays_for_what_is_missing_and_for_nothing_else(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        resolve, paying = made.pipeline.resolve, caller(builds=2)
        for text in ("a+b", "a+b", "b"):
            async with made.pipeline.ready(resolve(parse(text)), paying):
                pass
        with pytest.raises(QuotaExceeded):
            async with made.pipeline.ready(resolve(parse("acme-c")), paying):
                pass
        assert (len(made.engine.built), made.users) == (2, 0)


async def test_what_does_not_fit_beside_the_fused_base_is_refused_and_given_back(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        made.engine.runtime_weights = False
        await made.pipeline.fuse(made.pipeline.resolve(parse("a+b")))
        assert made.pipeline.fusion.fused is not None
        before = made.users
        with pytest.raises(Unservable):
            async with made.pipeline.ready(made.pipeline.resolve(parse("acme-c")), caller()):
                pass
        assert made.users == before
        async with made.pipeline.ready(None, caller()):
            pass
        await made.pipeline.fusion.restore()


async def test_a_pinned_adapter_stays_in_memory(tmp_path: Path) -> None:
    async with bench(tmp_path) as made:
        await made.pipeline.pin(made.pipeline.resolve(parse("a")))
        assert made.pipeline.residency.pinned_ids() == {"a@1"}
