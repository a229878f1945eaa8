"""The changes of the soak: registers, replaces, moves aliases, removes, saves, fuses and restores.

Every acknowledged change is recorded in `ExpectedState`. If the death of the engine interrupts a change, the
change is neither acknowledged nor refused. Its outcome is then read from the server when it is ready again.
"""

import asyncio
import random
from dataclasses import dataclass, field
from time import monotonic
from typing import Any
from urllib.parse import quote

import httpx

from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.campaigns.soaking.expected_state import CONTENTS, PARTNER, ExpectedState

MOST_NAMES, MOST_VERSIONS = 6, 4
OWN = "tenant"
ALIASES = ("prod", "next")
FUSED = (PARTNER, "roll", "dbl+upper:0.5")


@dataclass
class RegistryChanger:
    """Makes changes, one after another. `outcomes` counts them by operation and status."""

    http: httpx.AsyncClient
    known: ExpectedState
    draw: random.Random
    outcomes: dict[str, int] = field(default_factory=dict)
    unsure: int = 0
    internal: list[str] = field(default_factory=list)
    """Each reply with status 500 and its request. The death of the engine must be a 503 instead."""
    made: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held during a change. While another task holds it, the registry does not change."""

    async def run(self, pause: float) -> None:
        """Make changes until cancelled."""
        acts = (self._register, self._replace, self._point, self._remove, self._save, self._fuse)
        while True:
            async with self.lock:
                await self.draw.choices(acts, weights=(2, 3, 3, 2, 1, 1))[0]()
            await asyncio.sleep(pause)

    async def _call(self, what: str, method: str, path: str, body: Any = None) -> httpx.Response | None:
        """The reply. None if the outcome of the request is unknown."""
        try:
            reply = await self.http.request(method, path, json=body)
        except httpx.HTTPError:
            reply = None
        outcome = "no answer" if reply is None else str(reply.status_code)
        self.outcomes[f"{what} {outcome}"] = self.outcomes.get(f"{what} {outcome}", 0) + 1
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
        await self._register_version(f"{OWN}{self.made}")

    async def _replace(self) -> None:
        names = [name for name in self._names() if len(self.known.adapters[name]) < MOST_VERSIONS]
        if names:
            await self._register_version(self.draw.choice(names))

    async def _register_version(self, name: str) -> None:
        content, began = self.draw.choice(CONTENTS), monotonic()
        body = {"name": name, "path": str(ADAPTERS_DIR / content)}
        reply = await self._call("register", "POST", "/v1/adapters", body)
        if reply is None:
            await self._look_up(name, content, began)
        elif reply.is_success:
            self.known.registered(name, reply.json()["version"], content, began)

    async def _look_up(self, name: str, content: str, began: float) -> None:
        """Record a version that was registered although its request was not acknowledged."""
        self.unsure += 1
        listed = {row["version"] for row in await self._listed() if row["name"] == name}
        for number in listed - set(self.known.adapters.get(name, {})):
            self.known.registered(name, number, content, began)

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
        number, began = self.draw.choice(sorted(self.known.adapters[name])), monotonic()
        path = f"/v1/adapters/{name}/aliases/{alias}"
        reply = await self._call("point", "PUT", path, {"version": number})
        if reply is None:
            self.unsure += 1
            at = {
                row["version"]
                for row in await self._listed()
                if row["name"] == name and alias in row["aliases"]
            }
            if number not in at:
                return
        elif not reply.is_success:
            return
        self.known.pointed(name, alias, number, began)

    async def _remove(self) -> None:
        if not self._names():
            return
        name = self.draw.choice(self._names())
        number, began = self.draw.choice(sorted(self.known.adapters[name])), monotonic()
        reply = await self._call("remove", "DELETE", "/v1/adapters/" + quote(f"{name}@{number}"))
        if reply is None:
            self.unsure += 1
            if (name, number) in {(row["name"], row["version"]) for row in await self._listed()}:
                return
        elif not reply.is_success:
            return
        self.known.removed(name, number, began)

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
    """The registry of a server, in the form of `ExpectedState.registry`."""
    adapters = (await http.get("/v1/adapters")).raise_for_status().json()["data"]
    saved = (await http.get("/v1/compositions")).raise_for_status().json()["data"]
    return {
        "versions": sorted(row["id"] for row in adapters),
        "aliases": sorted(f"{row['name']}@{a}={row['version']}" for row in adapters for a in row["aliases"]),
        "compositions": sorted(row["name"] for row in saved),
    }
