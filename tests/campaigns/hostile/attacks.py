"""The attacks of a hostile tenant. Each runs until it is cancelled."""

import asyncio
import itertools
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.campaigns.hostile.wire import Wire, read_head

ADAPTERS = ("roll", "dbl", "code", "upper", "wrap", "okay", "bang", "polite")
METHODS = ("svd", "ties", "dare_ties", "linear")
CONTEXT = 2048
COMPLETIONS = "/v1/completions"
SMALL_WINDOW = 4096
HUGE_JSON = b'{"model": "testbed-base", "prompt": "' + b"roll table " * 2_800_000 + b'", "max_tokens": 1}'
GARBAGE = (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 65536)
BOUNDARY = "hostile"


@dataclass
class Attack:
    """The state of an attack: `wire` with the attacker's key, seeded randomness, and the replies."""

    wire: Wire
    root: str
    """Directory of adapters that the server may register."""
    name: str
    """Prefix of the names of the adapters that the attack registers."""
    draw: random.Random
    replies: "Counter[str]" = field(default_factory=Counter)
    _number: Iterator[int] = field(default_factory=itertools.count)

    async def sent(self, request: bytes) -> None:
        """Send one request, and count its reply."""
        self.replies[(await self.wire.send(request)).label] += 1

    async def many(self, act: Callable[[], Awaitable[None]], workers: int) -> None:
        """Call `act` again and again, `workers` at a time."""

        async def again() -> None:
            while True:
                await act()

        await asyncio.gather(*(again() for _ in range(workers)))

    def next(self) -> int:
        """The next number of a counter."""
        return next(self._number)


def _completion(prompt: object, tokens: int, **fields: Any) -> dict[str, Any]:
    asked = {"model": "testbed-base", "prompt": prompt, "max_tokens": tokens, "temperature": 0}
    return asked | {"ignore_eos": True} | fields


def _prompt(attack: Attack, tokens: int) -> list[int]:
    return attack.draw.choices(range(5, 250), k=tokens)


async def compositions(attack: Attack) -> None:
    """A new composition in each request: stacks with new members and weights, and merges."""

    async def ask() -> None:
        chosen = attack.draw.sample(ADAPTERS, attack.draw.randint(1, 4))
        body = _completion("roll table", 4) | {
            "adapters": [{"name": name, "weight": round(attack.draw.random(), 6)} for name in chosen]
        }
        if len(chosen) > 1 and attack.draw.random() < 0.5:
            body["composition"] = {"method": attack.draw.choice(METHODS), "rank": 8}
        await attack.sent(attack.wire.post(COMPLETIONS, body))

    await attack.many(ask, 16)


async def prompts(attack: Attack) -> None:
    """Prompts as long as the context allows, all different."""

    async def ask() -> None:
        await attack.sent(attack.wire.post(COMPLETIONS, _completion(_prompt(attack, CONTEXT - 8), 8)))

    await attack.many(ask, 16)


async def answers(attack: Attack) -> None:
    """Answers as long as the context allows, with stacks of four and log-probabilities."""

    async def ask() -> None:
        model = "+".join(attack.draw.sample(ADAPTERS, 4))
        body = _completion(_prompt(attack, 8), CONTEXT - 16, model=model, logprobs=5)
        await attack.sent(attack.wire.post(COMPLETIONS, body))

    await attack.many(ask, 16)


async def fan_out(attack: Attack) -> None:
    """Requests with the work of hundreds: many answers to one prompt, or many prompts in one request."""

    async def ask() -> None:
        if attack.draw.random() < 0.5:
            body = _completion(_prompt(attack, 64), 256, n=128, temperature=1.0)
        else:
            body = _completion([_prompt(attack, 64) for _ in range(256)], 64)
        await attack.sent(attack.wire.post(COMPLETIONS, body))

    await attack.many(ask, 8)


async def slow_readers(attack: Attack) -> None:
    """Streams that are read one byte a second, or never, each with its own set of adapters."""

    async def ask() -> None:
        model = "+".join(attack.draw.sample(ADAPTERS, 2))
        body = _completion(_prompt(attack, 8), CONTEXT - 16, model=model, stream=True)
        with suppress(OSError):
            async with attack.wire.connection(SMALL_WINDOW) as (reader, writer):
                writer.write(attack.wire.post(COMPLETIONS, body))
                reply = read_head(await reader.read(512))
                attack.replies[reply.label] += 1
                if reply.status != 200:
                    return
                is_never = attack.draw.random() < 0.5
                while is_never or await reader.read(1):
                    await asyncio.sleep(1)
                attack.replies["stream ended"] += 1

    await attack.many(ask, 32)


async def connections(attack: Attack) -> None:
    """Hundreds of connections that send one byte of the header a second, or announce a body and never send
    it.
    """
    head = attack.wire.request("POST", COMPLETIONS, headers={"content-length": "1000000"})

    async def ask() -> None:
        cut = len(head) if attack.draw.random() < 0.5 else attack.draw.randint(1, 40)
        with suppress(OSError):
            async with attack.wire.connection() as (reader, writer):
                writer.write(head[:cut])
                ended = asyncio.ensure_future(reader.read(512))
                at = cut
                while not (await asyncio.wait({ended}, timeout=1))[0]:
                    writer.write(head[at : at + 1] if at < len(head) else b" ")
                    at += 1
                attack.replies[f"slow: {read_head(ended.result()).label}"] += 1
        await asyncio.sleep(0.05)

    await attack.many(ask, 400)


async def strangers(attack: Attack) -> None:
    """Invalid keys, bytes that are not HTTP, and paths that do not exist.

    The name is the one in the results.
    """
    keyless = Wire(attack.wire.port, "lc-unknown")
    requests = (
        keyless.post(COMPLETIONS, _completion("roll table", 4)),
        keyless.request("GET", "/v1/models"),
        attack.wire.request("GET", "/v1/" + "x" * 4000),
        attack.wire.request("PUT", "/v1/fusion", b"{}"),
        *GARBAGE,
    )
    await attack.many(lambda: attack.sent(attack.draw.choice(requests)), 100)


async def ask_with_upgrade(attack: Attack) -> None:
    """Two requests on a connection. The body of the first arrives late and is itself a request.

    The first has `Upgrade`. More than two replies mean that the server took the body for a request.
    """
    body = last = attack.wire.request("GET", "/v1/models")
    heads = [
        attack.wire.request(
            "POST", path, headers={**fields, "connection": "Upgrade", "content-length": str(len(body))}
        )
        for path in (COMPLETIONS, "/v1/adapters", "/v1/unknown")
        for fields in ({"upgrade": "h2c"}, {"upgrade": "websocket", "sec-websocket-key": "eA=="})
    ]
    with suppress(OSError):
        async with attack.wire.connection() as (reader, writer):
            writer.write(attack.draw.choice(heads))
            await asyncio.sleep(0.01)
            writer.write(body + last)
            attack.replies[f"{(await reader.read()).count(b'HTTP/1.1 ')} replies"] += 1


async def upgrades(attack: Attack) -> None:
    """Requests with `Upgrade` whose body looks like a request."""
    await attack.many(lambda: ask_with_upgrade(attack), 32)


async def bodies(attack: Attack) -> None:
    """Megabytes of JSON: huge prompts to answer and to tokenize, nested, broken and too large bodies."""
    requests = (
        attack.wire.request("POST", COMPLETIONS, HUGE_JSON),
        attack.wire.request("POST", "/tokenize", HUGE_JSON),
        attack.wire.request("POST", COMPLETIONS, b"[" * 1_000_000),
        attack.wire.request("POST", COMPLETIONS, b"{" + b'"a": 1, ' * 1_000_000 + b'"a": 1}'),
        attack.wire.request("POST", COMPLETIONS, b'{"prompt": [' + b"1," * 5_000_000 + b"1]}"),
        attack.wire.request("POST", COMPLETIONS, headers={"content-length": "10000000000"}),
    )
    await attack.many(lambda: attack.sent(attack.draw.choice(requests)), 8)


async def registrations(attack: Attack) -> None:
    """Register, alias and remove adapters as fast as possible, with new names every time."""

    async def ask() -> None:
        name = f"{attack.name}-{attack.next()}"
        path = f"{attack.root}/{attack.draw.choice(ADAPTERS)}"
        await attack.sent(attack.wire.post("/v1/adapters", {"name": name, "path": path}))
        alias = json.dumps({"version": 1}).encode()
        await attack.sent(attack.wire.request("PUT", f"/v1/adapters/{name}/aliases/prod", alias))
        await attack.sent(attack.wire.request("DELETE", f"/v1/adapters/{name}"))

    await attack.many(ask, 8)


async def uploads(attack: Attack) -> None:
    """Uploads of tens of megabytes that are not adapters."""
    config = json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 8, "target_modules": ["q_proj"]})
    weights = (1000).to_bytes(8, "little") + b"{" * (48 << 20)
    parts = [
        b'form-data; name="name"\r\n\r\n' + f"{attack.name}-big".encode(),
        b'form-data; name="adapter_config.json"; filename="adapter_config.json"\r\n\r\n' + config.encode(),
        b'form-data; name="adapter_model.safetensors"; filename="adapter_model.safetensors"\r\n\r\n'
        + weights,
    ]
    body = (
        b"".join(b"--hostile\r\nContent-Disposition: " + part + b"\r\n" for part in parts)
        + b"--hostile--\r\n"
    )
    kind = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    request = attack.wire.request("POST", "/v1/adapters", body, kind)
    await attack.many(lambda: attack.sent(request), 4)


async def listings(attack: Attack) -> None:
    """Requests for all lists."""
    paths = ("/v1/models", "/v1/adapters", "/v1/compositions", "/v1/adapters/roll", "/v1/models/roll")
    requests = [attack.wire.request("GET", path) for path in paths]
    await attack.many(lambda: attack.sent(attack.draw.choice(requests)), 32)


async def everything(attack: Attack) -> None:
    """All attacks at the same time."""
    await asyncio.gather(*(act(attack) for name, act in ATTACKS.items() if name != "everything"))


ATTACKS: dict[str, Callable[[Attack], Awaitable[None]]] = {
    act.__name__: act
    for act in (
        compositions,
        prompts,
        answers,
        fan_out,
        slow_readers,
        connections,
        strangers,
        upgrades,
        bodies,
        registrations,
        uploads,
        listings,
        everything,
    )
}
