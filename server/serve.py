"""Runs the server: opens the registry, starts the engine, then serves HTTP, and closes them in reverse order.

Errors that can be found without the engine (a data directory in use, a bad option) are raised before it
starts.
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
# Seconds the event loop waits for a busy thread (checking an adapter, listing). Python's default: 5 ms.
SWITCH_SECONDS = 0.0005
AUDIT_FILE = "audit.jsonl"


def run(config: ServerConfig, vllm_args: Sequence[str]) -> None:
    """Serve until SIGTERM or SIGINT. Raises LoraComposeError if the data directory cannot be used."""
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
        auth = _auth_context(config, keys)
        uvloop.run(_serve(config, args, registry, auth))


def _auth_context(config: ServerConfig, keys: KeyStore) -> AuthContext:
    """Raises LoraComposeError("keys_needed") if other machines could use the server without an API key."""
    keyring = Keyring(keys.by_digest, config.api_keys, BenchmarkTraffic(), is_open=config.is_local)
    if not config.is_local and not keyring.has_keys:
        raise LoraComposeError(
            CommandCode.KEYS_NEEDED,
            f"--host {config.host} can be reached from other machines, and there is no API key. Create one: "
            f"`lora-compose keys create NAME --role admin --data-dir {config.data_dir}`",
        )
    if keyring.is_open:
        logger.warning("there are no API keys: every user of this machine may use and administer the server")
    return AuthContext(keyring, Audit(config.data_dir / AUDIT_FILE), config.admin_port)


def _end_start_up(*_: object) -> NoReturn:
    """Handle SIGTERM before uvicorn listens: unwind, so that vLLM's processes end with this one."""
    raise SystemExit(0)


def vllm_namespace(config: ServerConfig, vllm_args: Sequence[str]) -> Namespace:
    """vLLM's options: those of the embedded base first, then those of the user."""
    arguments = ["--model", config.model, *vllm_args]
    if config.is_embedded:
        arguments = [*EMBEDDED_OPTIONS, *arguments]
    return parse_vllm_args(arguments)


async def _serve(config: ServerConfig, args: Namespace, registry: Registry, auth: AuthContext) -> None:
    app_switch, metrics = AppSwitch(), Metrics()

    @asynccontextmanager
    async def start() -> AsyncIterator[AppState]:
        async with launch(
            args, lora_requests_info=config.lora_requests_info, in_thread=supervisor.up.is_set()
        ) as engine:
            # When the engine dies, vLLM's error handler stops the server that it finds here. Ours continues.
            engine.app.state.server = SimpleNamespace(should_exit=False)
            async with assemble(config, engine, registry, auth.keyring.traffic, metrics) as state:
                yield state

    supervisor = Supervisor(start, lambda state: create_app(state, auth), app_switch, metrics)
    server = UvicornServer(
        app_switch,
        uvicorn.Config(
            RequestIdMiddleware(
                app_switch if args.disable_uvicorn_access_log else RequestLogMiddleware(app_switch)
            ),
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
    """The TLS options, which vLLM and uvicorn name alike (`--ssl-keyfile`, `--ssl-certfile`, ...)."""
    names = ("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_cert_reqs", "ssl_ciphers")
    return {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}


def _sockets(config: ServerConfig, main: uvicorn.Config) -> list[socket] | None:
    """Two sockets if administration has its own port, else None: uvicorn then opens its own."""
    if config.admin_port is None:
        return None
    logger.info("serving administration on %s:%d only", config.admin_host, config.admin_port)
    # Without log_config=None, uvicorn logs addresses of clients and the paths they request.
    admin = uvicorn.Config(main.app, config.admin_host, config.admin_port, log_config=None)
    return [main.bind_socket(), admin.bind_socket()]


class UvicornServer(uvicorn.Server):
    """A uvicorn server that ends with exit code 0 after SIGTERM or SIGINT."""

    def __init__(self, app_switch: AppSwitch, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app_switch = app_switch

    @override
    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        """End a benchmark first, because the drain would wait for the requests that it keeps sending."""
        if self._app_switch.state is not None:
            await self._app_switch.state["benchmarks"].close()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The first signal drains, the second ends at once. uvicorn's own version raises the signal again."""
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
