"""Registers, replaces, points, removes, saves, fuses and restores, one after another, and keeps the books.

A change that the engine's death interrupts is neither acknowledged nor refused: what became of it is looked
up when the server is back, and must be one or the other.
"""

import asyncio
import random
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from urllib.parse import quote

import httpx

from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.campaigns.soaking.known import CONTENTS, PARTNER, Known

MOST_NAMES, MOST_VERSIONS = 6, 4
OWN = "tenant"
ALIASES = ("prod", "next")
FUSED = (PARTNER, "roll", "dbl+upper:0.5")


@dataclass
class Changing:
    """One who changes things; `told` counts what by outcome."""

    http: httpx.AsyncClient
    known: Known
    draw: random.Random
    told: dict[str, int] = field(default_factory=dict)
    unsure: int = 0
    internal: list[str] = field(default_factory=list)
    """Each 500, and what it was told to: the engine's death is a 503."""
    made: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held for a change: whoever holds it sees a registry at rest."""

    async def run(self, pause: float) -> None:
        """Until cancelled."""
        acts = (self._register, self._replace, self._point, self._remove, self._save, self._fuse)
        while True:
            async with self.lock:
                await self.draw.choices(acts, weights=(2, 3, 3, 2, 1, 1))[0]()
            await asyncio.sleep(pause)

    async def _call(self, what: str, method: str, path: str, body: Any = None) -> httpx.Response | None:
        """The reply; None where the server cannot say what it did."""
        try:
            reply = await self.http.request(method, path, json=body)
        except httpx.HTTPError:
            reply = None
        outcome = "no answer" if reply is None else str(reply.status_code)
        self.told[f"{what} {outcome}"] = self.told.get(f"{what} {outcome}", 0) + 1
        if reply is not None and reply.status_code == 500:
            self.internal.append(f"{what} {path} {body} at {reply.headers['date']}: {reply.text}")
        return None if reply is None or reply.status_code >= 500 else reply

    def _names(self) -> list[str]:
        return sorted(name for name in self.known.adapters if name.startswith(OWN))

    async def _register(self) -> None:
        if len(self._names()) >= MOST_NAMES:
            await self._remove()
            return
        self.made += 1
        await self._offer(f"{OWN}{self.made}")

    async def _replace(self) -> None:
        names = [name for name in self._names() if len(self.known.adapters[name]) < MOST_VERSIONS]
        if names:
            await self._offer(self.draw.choice(names))

    async def _offer(self, name: str) -> None:
        content, begun = self.draw.choice(CONTENTS), monotonic()
        body = {"name": name, "path": str(ADAPTERS_DIR / content)}
        reply = await self._call("register", "POST", "/v1/adapters", body)
        if reply is None:
            await self._look_up(name, content, begun)
        elif reply.is_success:
            self.known.registered(name, reply.json()["version"], content, begun)

    async def _look_up(self, name: str, content: str, begun: float) -> None:
        """Whether a version came about that nobody told us of."""
        self.unsure += 1
        listed = {one["version"] for one in await self._listed() if one["name"] == name}
        for number in listed - set(self.known.adapters.get(name, {})):
            self.known.registered(name, number, content, begun)

    async def _listed(self) -> list[dict[str, Any]]:
        while True:
            try:
                reply = await self.http.get("/v1/adapters")
                if reply.is_success:
                    found: list[dict[str, Any]] = reply.json()["data"]
                    return found
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.2)

    async def _point(self) -> None:
        if not self._names():
            return
        name, alias = self.draw.choice(self._names()), self.draw.choice(ALIASES)
        number, begun = self.draw.choice(sorted(self.known.adapters[name])), monotonic()
        path = f"/v1/adapters/{name}/aliases/{alias}"
        reply = await self._call("point", "PUT", path, {"version": number})
        if reply is None:
            self.unsure += 1
            at = {
                one["version"]
                for one in await self._listed()
                if one["name"] == name and alias in one["aliases"]
            }
            if number not in at:
                return
        elif not reply.is_success:
            return
        self.known.pointed(name, alias, number, begun)

    async def _remove(self) -> None:
        if not self._names():
            return
        name = self.draw.choice(self._names())
        number, begun = self.draw.choice(sorted(self.known.adapters[name])), monotonic()
        reply = await self._call("remove", "DELETE", "/v1/adapters/" + quote(f"{name}@{number}"))
        if reply is None:
            self.unsure += 1
            if (name, number) in {(one["name"], one["version"]) for one in await self._listed()}:
                return
        elif not reply.is_success:
            return
        self.known.removed(name, number, begun)

    async def _save(self) -> None:
        name = f"saved{self.draw.randrange(3)}"
        if name in self.known.compositions:
            reply = await self._call("unsave", "DELETE", f"/v1/compositions/{name}")
            if reply is not None and reply.is_success:
                self.known.compositions.discard(name)
            return
        reply = await self._call(
            "save", "POST", "/v1/compositions", {"name": name, "model": "roll+polite:0.5"}
        )
        if reply is not None and reply.is_success:
            self.known.compositions.add(name)

    async def _fuse(self) -> None:
        if self.draw.random() < 0.5:
            await self._call("restore", "DELETE", "/v1/fusion")
        else:
            await self._call("fuse", "PUT", "/v1/fusion", {"model": self.draw.choice(FUSED)})


async def listed(http: httpx.AsyncClient) -> dict[str, object]:
    """The registry of a server, as `Known.registry` tells it."""
    adapters = (await http.get("/v1/adapters")).raise_for_status().json()["data"]
    saved = (await http.get("/v1/compositions")).raise_for_status().json()["data"]
    return {
        "versions": sorted(one["id"] for one in adapters),
        "aliases": sorted(f"{one['name']}@{a}={one['version']}" for one in adapters for a in one["aliases"]),
        "compositions": sorted(one["name"] for one in saved),
    }
