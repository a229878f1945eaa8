"""The registry, compared with a simple model of it: dictionaries that are never restarted."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lora_compose.adapters.composition.composition import Composition, Member
from lora_compose.adapters.errors import Conflict, NotFound
from lora_compose.adapters.registry.registry import Registry
from tests.adapters.registries import register, weights_of

NAMES = st.sampled_from(["a", "b"])
TEXTS = st.sampled_from(["one", "two", "three"])
ALIASES = st.sampled_from(["prod", "next"])
REFS = st.none() | ALIASES | st.integers(1, 4).map(str)


class RegistryModel(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp())
        self.registry = Registry(self.home)
        self.versions: dict[str, dict[int, str]] = {"a": {}, "b": {}}
        self.last = {"a": 0, "b": 0}
        self.aliases: dict[str, dict[str, int]] = {"a": {}, "b": {}}
        self.saved: dict[str, Composition] = {}

    def number(self, name: str, ref: str | None) -> int | None:
        live = self.versions[name]
        if ref is None:
            return max(live, default=None)
        number = int(ref) if ref.isdigit() else self.aliases[name].get(ref, 0)
        return number if number in live else None

    def forget(self, name: str, number: int) -> None:
        del self.versions[name][number]
        self.aliases[name] = {alias: to for alias, to in self.aliases[name].items() if to != number}

    def resolves(self, composition: Composition) -> bool:
        return all(self.number(member.name, member.ref) for member in composition.members)

    @rule(name=NAMES, text=TEXTS)
    def register(self, name: str, text: str) -> None:
        version, created = register(self.registry, name, text)
        assert created == (text not in self.versions[name].values())
        if created:
            self.last[name] += 1
            self.versions[name][self.last[name]] = text
        assert self.versions[name][version.number] == text

    @rule(name=NAMES, alias=ALIASES, ref=REFS)
    def point(self, name: str, alias: str, ref: str | None) -> None:
        number = self.number(name, ref)
        if number is None:
            with pytest.raises(NotFound):
                self.registry.set_alias(name, alias, ref)
        else:
            assert self.registry.set_alias(name, alias, ref).number == number
            self.aliases[name][alias] = number

    @rule(name=NAMES, ref=REFS, cascade=st.booleans())
    def remove(self, name: str, ref: str | None, cascade: bool) -> None:
        found = self.number(name, ref)
        if found is None:
            with pytest.raises(NotFound):
                self.registry.remove(name, ref, cascade)
            return
        before = self.versions[name].copy(), self.aliases[name].copy()
        for number in [found] if ref else list(self.versions[name]):
            self.forget(name, number)
        broken = {saved for saved, composition in self.saved.items() if not self.resolves(composition)}
        if broken and not cascade:
            self.versions[name], self.aliases[name] = before
            with pytest.raises(Conflict):
                self.registry.remove(name, ref)
        else:
            removed = self.registry.remove(name, ref, cascade)
            assert {version.number for version in removed} == set(before[0]) - set(self.versions[name])
            self.saved = {saved: self.saved[saved] for saved in self.saved if saved not in broken}

    @rule(saved=st.sampled_from(["mine", "yours"]), name=NAMES, ref=REFS, weight=st.sampled_from([1.0, 0.5]))
    def save(self, saved: str, name: str, ref: str | None, weight: float) -> None:
        composition = Composition((Member(name, weight, ref),))
        if not self.resolves(composition):
            with pytest.raises(NotFound):
                self.registry.save_composition(saved, composition)
        elif self.saved.get(saved, composition) != composition:
            with pytest.raises(Conflict):
                self.registry.save_composition(saved, composition)
        else:
            assert self.registry.save_composition(saved, composition) == (saved not in self.saved)
            self.saved[saved] = composition

    @precondition(lambda self: self.saved)
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        saved = data.draw(st.sampled_from(sorted(self.saved)))
        self.registry.delete_composition(saved)
        del self.saved[saved]

    @rule(keep=st.integers(1, 2))
    def retire(self, keep: int) -> None:
        kept = {name: sorted(live)[-keep:] for name, live in self.versions.items()}
        for one in self.registry.retention.retire(keep, "f00d"):
            name, number = one.version.name, one.version.number
            assert number not in (*kept[name], *self.aliases[name].values())
            self.forget(name, number)
        assert all(map(self.resolves, self.saved.values()))

    @rule()
    def reopen(self) -> None:
        self.registry.close()
        self.registry = Registry(self.home)

    @rule()
    def sweep(self) -> None:
        self.registry.sweep()
        wanted = {text for live in self.versions.values() for text in live.values()}
        assert len(list((self.home / "store").iterdir())) == len(wanted)

    @invariant()
    def agrees(self) -> None:
        assert self.registry.names() == [name for name in ("a", "b") if self.versions[name]]
        for name in self.registry.names():
            versions = self.registry.versions(name)
            assert {version.number: weights_of(version) for version in versions} == self.versions[name]
            assert self.registry.aliases(name) == self.aliases[name]
        assert self.registry.compositions() == self.saved
        self.registry.check_integrity()

    def teardown(self) -> None:
        self.registry.close()
        shutil.rmtree(self.home)


RegistryModel.TestCase.settings = settings(max_examples=20, stateful_step_count=20, deadline=None)
TestRegistryModel = RegistryModel.TestCase
