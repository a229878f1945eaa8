"""The whole server in this process, over HTTP on a loopback port, with a stand-in for only the engine.

Registry, keys, quotas, audit, metrics, residency and every route are the real ones. The stand-in answers each
generating request with the name it was asked for, so nothing here may be about what a model says.
"""

import asyncio
import itertools
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import httpx
import torch
import uvicorn
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from lora_compose.adapters.registry.registry import Registry
from lora_compose.server.app import create_app
from lora_compose.server.assembly import assemble
from lora_compose.server.config import EMBEDDED_BASE, ServerConfig
from lora_compose.server.engine.spec import Component
from lora_compose.server.http.benchmark_traffic import BenchmarkTraffic
from lora_compose.server.http.connection import protocol_with
from lora_compose.server.http.stack import around
from lora_compose.server.metrics import Metrics
from lora_compose.server.paths import GENERATING, NAMING
from lora_compose.server.supervision.app_switch import AppSwitch
from lora_compose.server.supervision.engine_state import EngineState
from lora_compose.server.tenants.audit import Audit
from lora_compose.server.tenants.key import Key, Quotas
from lora_compose.server.tenants.key_store import KeyStore
from lora_compose.server.tenants.keyring import Keyring
from lora_compose.server.tenants.middleware import AuthContext
from lora_compose.server.tenants.refusal_delay import RefusalDelay
from lora_compose.training.testbed.paths import ADAPTERS_DIR

OPERATOR_KEY = "the-operator-s"


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """The stand-in for vLLM's app."""
    body = await Request(scope, receive).json()
    await JSONResponse({"model": body["model"], "tokens": [1]})(scope, receive, send)


@dataclass
class StandIn:
    """A stand-in for the engine. It remembers only which builds there are."""

    app: ASGIApp = answer
    base: str = "testbed-base"
    model_dir: Path = EMBEDDED_BASE
    max_model_len: int = 2048
    takes_pictures: bool = False
    max_lora_rank: int = 64
    max_loras: int = 8
    slots: int = 8
    max_cpu_loras: int = 64
    dtype: torch.dtype = torch.float32
    refused_fields: dict[str, str] = field(default_factory=dict)
    runtime_weights: bool = True
    special_token_ids: frozenset[int] = frozenset({1, 2})
    parses_tools: bool = False
    parses_reasoning: bool = False
    lora_modules: frozenset[str] | None = None
    other_names: tuple[str, ...] = ()
    paths: frozenset[str] = frozenset((*GENERATING, *NAMING))
    stores_responses: bool = False
    embedding_modules: frozenset[str] = frozenset({"embed_tokens", "lm_head"})
    metrics_registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    builds: dict[int, str] = field(default_factory=dict)

    async def prepare(self, lora_int_id: int, components: Sequence[Component]) -> None:
        self.builds[lora_int_id] = components[0].directory

    async def unload(self, lora_int_id: int, components: Sequence[Component]) -> None:
        self.builds.pop(lora_int_id, None)

    def expose(self, name: str, lora_int_id: int, components: Sequence[Component]) -> None: ...

    def hide(self, name: str) -> None: ...

    async def why_not_foldable(self, components: Sequence[Component]) -> str | None:
        return None

    async def load_base(self, components: Sequence[Component], progress: Path) -> float:
        return 0.0

    async def stop_serving(self) -> None: ...

    async def resident(self) -> list[dict[str, Any]]:
        return [{"bytes": dict.fromkeys(self.builds.values(), 1), "slots": {}}]

    async def is_healthy(self) -> bool:
        return True

    def is_alive(self) -> bool:
        return True

    async def ping(self) -> None: ...

    async def background_ended(self, response_id: str) -> None: ...

    def cpu_seconds(self) -> float:
        return 0.0


@dataclass(frozen=True)
class AppWithoutEngine:
    """`url` is the main port. `admin_url` is the administration port if there is one."""

    url: str
    admin_url: str
    data_dir: Path
    keys: KeyStore

    def create_key(self, name: str, **options: Any) -> str:
        """Create a key and return its secret. `options` are fields of Key and of Quotas."""
        quotas = Quotas(**options.pop("quotas", {}))
        return self.keys.create(Key("", name, options.pop("role", "inference"), quotas=quotas, **options))[1]

    def client(self, secret: str | None = None, *, admin: bool = True) -> httpx.Client:
        headers = {} if secret is None else {"authorization": f"Bearer {secret}"}
        return httpx.Client(base_url=self.admin_url if admin else self.url, headers=headers, timeout=60)

    def audit_lines(self) -> dict[str, dict[str, Any]]:
        """The audit log, by request id."""
        lines = map(json.loads, (self.data_dir / "audit.jsonl").read_text().splitlines())
        return {line["request_id"]: line for line in lines if "request_id" in line}


@contextmanager
def app_without_engine(
    home: Path,
    *,
    api_keys: Sequence[str] = (),
    other_names: tuple[str, ...] = (),
    model_dir: Path = EMBEDDED_BASE,
    engine: StandIn | None = None,
    **options: Any,
) -> Iterator[AppWithoutEngine]:
    """With `api_keys`, administration has its own port. The shipped adapters may be registered.

    `other_names` are further names of the base. `options` are fields of ServerConfig. A second app on the
    same `home` is a restart.
    """
    config = ServerConfig(
        data_dir=home / "data", adapter_roots=(ADAPTERS_DIR, home), api_keys=(*api_keys,), **options
    )
    if engine is None:
        name = "testbed-base" if model_dir == EMBEDDED_BASE else model_dir.name
        engine = StandIn(base=name, model_dir=model_dir, other_names=other_names)
    config.data_dir.mkdir(parents=True, exist_ok=True)
    next_look = itertools.count(0.0, 10.0).__next__  # changes of keys take effect at once
    with ExitStack() as stack:
        sockets = [stack.enter_context(_listening()) for _ in range(2 if api_keys else 1)]
        ports = [listener.getsockname()[1] for listener in sockets]
        keys = stack.enter_context(KeyStore(config.data_dir))
        registry = stack.enter_context(Registry(config.data_dir, reserved=[engine.base, *other_names]))
        may_open = lambda: not api_keys and not keys.are_required()  # noqa: E731
        keyring = Keyring(keys.by_digest, config.api_keys, BenchmarkTraffic(), may_open, next_look)
        auth = AuthContext(keyring, Audit(config.data_dir / "audit.jsonl"), ports[1] if api_keys else None)
        auth.refusal_delay = RefusalDelay(seconds=0.0)
        stack.enter_context(_served(config, engine, registry, auth, sockets))
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        yield AppWithoutEngine(urls[0], urls[-1], config.data_dir, keys)


def _listening() -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    return made


@contextmanager
def _served(
    config: ServerConfig, engine: StandIn, registry: Registry, auth: AuthContext, sockets: list[socket.socket]
) -> Iterator[None]:
    front, is_up = AppSwitch(), threading.Event()
    server = uvicorn.Server(
        uvicorn.Config(
            around(front, config.http),
            http=protocol_with(config.http),
            access_log=False,
            log_config=None,
            timeout_keep_alive=config.http.keep_alive_seconds,
        )
    )

    async def serve() -> None:
        metrics = Metrics()
        async with assemble(config, cast(Any, engine), registry, auth.keyring.traffic, metrics) as state:
            await EngineState.kept(registry).restore(state)
            front.open(create_app(state, auth), state)
            serving = asyncio.create_task(server.serve(sockets))
            while not server.started:
                await asyncio.sleep(0)
            is_up.set()
            await serving

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert is_up.wait(60)
        yield
    finally:
        server.should_exit = True
        thread.join()


def register_shipped(client: httpx.Client, names: Sequence[str]) -> None:
    """Register these shipped adapters under their own names."""
    for name in names:
        body = {"name": name, "path": str(ADAPTERS_DIR / name)}
        client.post("/v1/adapters", json=body).raise_for_status()
