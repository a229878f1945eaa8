"""`lora-compose serve`: registry, engine and HTTP, brought up in that order and taken down in reverse.

What can be refused without the engine (a data directory in use, a bad option) is refused before it starts.
"""

import asyncio
import logging
import signal
import sys
from argparse import Namespace
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from socket import socket
from types import FrameType, SimpleNamespace
from typing import Any, NoReturn

import uvicorn
import uvloop
from typing_extensions import override

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.registry.registry import Registry
from lora_compose.server.app import create_app
from lora_compose.server.assembly import assemble, running
from lora_compose.server.config import EMBEDDED_OPTIONS, ServerConfig
from lora_compose.server.engine.frontend.launch import launch, parse_vllm_args, set_environment
from lora_compose.server.http.access_log import RequestLogMiddleware
from lora_compose.server.http.benchmark_traffic import BenchmarkTraffic
from lora_compose.server.http.connection import HttpProtocol
from lora_compose.server.http.logs import configure
from lora_compose.server.http.request_id import RequestIdMiddleware
from lora_compose.server.metrics import Metrics
from lora_compose.server.state import AppState
from lora_compose.server.supervision.app_switch import AppSwitch
from lora_compose.server.supervision.supervisor import Supervisor
from lora_compose.server.tenants.audit import Audit
from lora_compose.server.tenants.key_store import KeyStore
from lora_compose.server.tenants.keyring import Keyring
from lora_compose.server.tenants.middleware import AuthContext

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 30
# The event loop waits for so long whenever a thread works (checks an adapter, lists). Python's own is 5 ms.
SWITCH_SECONDS = 0.0005
AUDIT_FILE = "audit.jsonl"


def run(config: ServerConfig, vllm_args: Sequence[str]) -> None:
    """Serve until SIGTERM or SIGINT. Raises LoraComposeError where the data directory cannot be had."""
    signal.signal(signal.SIGTERM, _end_start_up)
    config.data_dir.mkdir(parents=True, exist_ok=True)
    configure(config.log_format, config.data_dir)
    sys.setswitchinterval(SWITCH_SECONDS)
    set_environment(config.model)
    args = vllm_namespace(config, vllm_args)
    with (
        Registry(config.data_dir, reserved=args.served_model_name or [args.model]) as registry,
        KeyStore(config.data_dir) as keys,
    ):
        door = _door(config, keys)
        uvloop.run(_serve(config, args, registry, door))


def _door(config: ServerConfig, keys: KeyStore) -> AuthContext:
    """Raises LoraComposeError("keys_needed") where strangers could come in without one."""
    keyring = Keyring(keys.by_digest, config.api_keys, BenchmarkTraffic(), is_open=config.is_local)
    if not config.is_local and not keyring.has_keys:
        raise LoraComposeError(
            CommandCode.KEYS_NEEDED,
            f"--host {config.host} can be reached from other machines, and there is no API key. Make one: "
            f"`lora-compose keys create NAME --role admin --data-dir {config.data_dir}`",
        )
    if keyring.is_open:
        logger.warning("there are no API keys: everybody on this machine may do everything")
    return AuthContext(keyring, Audit(config.data_dir / AUDIT_FILE), config.admin_port)


def _end_start_up(*_: object) -> NoReturn:
    """SIGTERM before uvicorn listens: unwind, so that vLLM's processes end with ours."""
    raise SystemExit(0)


def vllm_namespace(config: ServerConfig, vllm_args: Sequence[str]) -> Namespace:
    """vLLM's options: the user's, after those the embedded base wants."""
    arguments = ["--model", config.model, *vllm_args]
    if config.is_embedded:
        arguments = [*EMBEDDED_OPTIONS, *arguments]
    return parse_vllm_args(arguments)


async def _serve(config: ServerConfig, args: Namespace, registry: Registry, door: AuthContext) -> None:
    front, metrics = AppSwitch(), Metrics()

    @asynccontextmanager
    async def start() -> AsyncIterator[AppState]:
        async with launch(
            args, lora_requests_info=config.lora_requests_info, in_thread=supervisor.up.is_set()
        ) as engine:
            # vLLM's error handler stops the server it finds here when its engine has died; ours goes on.
            engine.app.state.server = SimpleNamespace(should_exit=False)
            async with assemble(config, engine, registry, door.keyring.traffic, metrics) as state:
                yield state

    supervisor = Supervisor(start, lambda state: create_app(state, door), front, metrics)
    server = UvicornServer(
        front,
        uvicorn.Config(
            RequestIdMiddleware(front if args.disable_uvicorn_access_log else RequestLogMiddleware(front)),
            host=config.host,
            port=config.port,
            http=HttpProtocol,
            access_log=False,
            log_config=None,
            timeout_graceful_shutdown=DRAIN_SECONDS,
            **_tls(args),
        ),
    )
    async with running(supervisor.run()) as supervising:
        up = asyncio.create_task(supervisor.up.wait())
        await asyncio.wait({up, supervising}, return_when=asyncio.FIRST_COMPLETED)
        up.cancel()
        if supervising.done():
            supervising.result()
        scheme = "https" if server.config.is_ssl else "http"
        logger.info("serving %s on %s://%s:%d", args.model, scheme, config.host, config.port)
        await server.serve(_sockets(config, server.config))


def _tls(args: Namespace) -> dict[str, Any]:
    """vLLM's own options (`--ssl-keyfile`, `--ssl-certfile`, ...), which are uvicorn's."""
    names = ("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_cert_reqs", "ssl_ciphers")
    return {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}


def _sockets(config: ServerConfig, main: uvicorn.Config) -> list[socket] | None:
    """Two where admin has a port of its own. None: uvicorn opens its one."""
    if config.admin_port is None:
        return None
    logger.info("administration on %s:%d only", config.admin_host, config.admin_port)
    # By default a Config sets up uvicorn's own log lines, which hold addresses and paths of clients.
    admin = uvicorn.Config(main.app, config.admin_host, config.admin_port, log_config=None)
    return [main.bind_socket(), admin.bind_socket()]


class UvicornServer(uvicorn.Server):
    """uvicorn, ending with exit code 0 when it is asked to end."""

    def __init__(self, front: AppSwitch, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._front = front

    @override
    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """The benchmark goes first: the drain would wait for requests it keeps sending."""
        if self._front.state is not None:
            await self._front.state["benchmarks"].close()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The first signal drains, the second ends now. uvicorn would raise the signal again afterwards."""
        previous = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
