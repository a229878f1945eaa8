"""Runs the server: checks, then HTTP, then vLLM in a thread, and closes them in reverse order.

Errors that can be found without vLLM (a port or a data directory in use, no model) are raised before it is
imported. HTTP answers from then on: `/livez` with 200, everything else with 503 until the engine is ready.
"""

import asyncio
import logging
import multiprocessing
import sys
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from socket import socket
from types import SimpleNamespace
from typing import TextIO

import uvicorn
import uvloop
from starlette.concurrency import run_in_threadpool

from lora_compose.adapters.command_line import DEFAULT_URL
from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.models.cache import resolve
from lora_compose.adapters.registry.registry import Registry
from lora_compose.server.config import ServerConfig, options_of_base
from lora_compose.server.cpu_defaults import is_cpu_build
from lora_compose.server.engine.frontend.early_process import import_early
from lora_compose.server.engine.frontend.environment import engine_environment
from lora_compose.server.engine.frontend.loading import in_loading_thread, memory_of
from lora_compose.server.home import check_shared_memory, set_home
from lora_compose.server.http.benchmark_traffic import BenchmarkTraffic
from lora_compose.server.http.connection import protocol_with
from lora_compose.server.http.harmless_lines import harmless_lines_left_out
from lora_compose.server.http.logs import configure
from lora_compose.server.http.stack import around
from lora_compose.server.http.tls import refresh
from lora_compose.server.memory import GIB
from lora_compose.server.metrics import Metrics
from lora_compose.server.model_files import check_model_files
from lora_compose.server.options.http_options import HttpOptions
from lora_compose.server.options.lora_modules import read_modules
from lora_compose.server.preflight import (
    check_model,
    check_tls,
    listen,
    prepare_data_dir,
)
from lora_compose.server.process_end import leaving
from lora_compose.server.state import AppState
from lora_compose.server.supervision.app_switch import AppSwitch
from lora_compose.server.supervision.background import running
from lora_compose.server.supervision.supervisor import Supervisor
from lora_compose.server.tenants.audit import AUDIT_FILE, Audit
from lora_compose.server.tenants.key_store import KeyStore
from lora_compose.server.tenants.keyring import Keyring
from lora_compose.server.tenants.middleware import AuthContext
from lora_compose.server.uvicorn_server import DRAIN_SECONDS, UvicornServer

logger = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 20.0
# Seconds the event loop waits for a busy thread (checking an adapter, listing). Python's default: 5 ms.
SWITCH_SECONDS = 0.0005
ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}
"""For a host that stands for every address of this machine: the one to connect to."""


def run(config: ServerConfig, vllm_args: Sequence[str]) -> None:
    """Serve until SIGTERM or SIGINT, then end this process.

    Raises LoraComposeError if the server cannot start."""
    started = time.monotonic()
    config = replace(config, model=resolve(config.model))
    check_model(config.model)
    check_model_files(config.model, vllm_args)
    check_tls(config.http)
    check_shared_memory()
    main, admin = listen(config)
    prepare_data_dir(config.data_dir)
    set_home(config.data_dir)
    sys.setswitchinterval(SWITCH_SECONDS)
    with leaving(), _stderr(config) as stream, _removed_at_the_end(config.http.uds):
        configure(config.log_format, config.data_dir, config.log_level, stream)
        with Registry(config.data_dir) as registry, KeyStore(config.data_dir) as keys:
            if is_cpu_build():  # after the registry is opened: it empties its directory for temporary files
                import_early(engine_environment(config.model))
            front = Front(config, [*main, *admin], _auth_context(config, keys), started)
            app_switch = AppSwitch()
            server = front.server(app_switch)
            server.handle_signals()
            uvloop.run(_serve(server, front, vllm_args, registry, app_switch))
        logger.info("stopped")


def _stderr(config: ServerConfig) -> AbstractContextManager[TextIO | None]:
    """Where log lines go. With --log-level debug, harmless lines are shown too."""
    return nullcontext() if config.log_level == "debug" else harmless_lines_left_out()


@contextmanager
def _removed_at_the_end(path: Path | None) -> Iterator[None]:
    try:
        yield
    finally:
        if path is not None:
            path.unlink(missing_ok=True)


@dataclass(frozen=True)
class Front:
    """What HTTP needs before an engine runs."""

    config: ServerConfig
    sockets: list[socket]
    auth: AuthContext
    started: float
    """When the command began, by the monotonic clock."""

    def server(self, app_switch: AppSwitch) -> UvicornServer:
        """The HTTP server in front of `app_switch`."""
        options = self.config.http
        uvicorn_config = uvicorn.Config(
            around(app_switch, options),
            host=self.config.host,
            port=self.config.port,
            http=protocol_with(options),
            access_log=False,
            log_config=None,
            log_level=options.uvicorn_log_level,
            timeout_keep_alive=options.keep_alive_seconds,
            timeout_graceful_shutdown=DRAIN_SECONDS,
            **options.tls,
        )
        return UvicornServer(app_switch, uvicorn_config)

    @property
    def url(self) -> str:
        """An address at which this machine reaches the server."""
        if self.config.http.uds is not None:
            return f"unix:{self.config.http.uds}"
        scheme = "http" if self.config.http.ssl_certfile is None else "https"
        host = ANY_ADDRESS.get(self.config.host, self.config.host)
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.config.port}"

    def log_ready(self, model: str) -> None:
        """Say where the server is, and what to try."""
        seconds = time.monotonic() - self.started
        option = "" if self.url == DEFAULT_URL else f" --url {self.url}"
        question = "say table" if self.config.is_embedded else "What is the capital of France?"
        hint = f"Try: lora-compose ask '{question}'{option}"
        if self.config.http.uds is not None:
            hint = f"Try: curl --unix-socket {self.config.http.uds} http://localhost/v1/models"
        logger.info("serving %s on %s, ready after %.0f s. %s", model, self.url, seconds, hint)
        if self.config.admin_port is not None:
            host, port = self.config.admin_host, self.config.admin_port
            logger.info(
                "serving administration on %s only", f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            )


def _auth_context(config: ServerConfig, keys: KeyStore) -> AuthContext:
    """Raises LoraComposeError("keys_needed") if other machines could use the server without an API key."""

    def may_open() -> bool:
        return config.is_local and not keys.are_required()

    keyring = Keyring(keys.by_digest, config.api_keys, BenchmarkTraffic(), may_open)
    if not config.is_local and not keyring.has_keys:
        raise LoraComposeError(
            CommandCode.KEYS_NEEDED,
            f"--host {config.host} can be reached from other machines, and there is no API key. Create one: "
            f"`lora-compose keys create NAME --role admin --data-dir {config.data_dir}`",
        )
    if keyring.is_open:
        logger.warning("there are no API keys: every user of this machine may use and administer the server")
    elif not keyring.has_keys:
        logger.warning(
            "all API keys are revoked, so every request is refused: create a key with `lora-compose keys "
            "create NAME --role admin --data-dir %s`, or accept requests without a key with `lora-compose "
            "keys open --data-dir %s`",
            config.data_dir,
            config.data_dir,
        )
    return AuthContext(keyring, Audit(config.data_dir / AUDIT_FILE), config.admin_port)


def vllm_namespace(config: ServerConfig, vllm_args: Sequence[str]) -> Namespace:
    """vLLM's options: those of a base of this project first, then those of the user. Imports vLLM."""
    from lora_compose.server.engine.frontend.launch import parse_vllm_args, set_environment

    args = parse_vllm_args([*options_of_base(config, vllm_args), "--model", config.model, *vllm_args])
    set_environment(args)
    if config.lora_requests_info and args.disable_log_stats:
        raise LoraComposeError(
            CommandCode.INVALID_OPTION, "--lora-requests-info has no effect with --disable-log-stats."
        )
    args.enable_tokenizer_info_endpoint = config.http.enable_tokenizer_info_endpoint
    return args


async def _serve(
    server: UvicornServer, front: Front, vllm_args: Sequence[str], registry: Registry, app_switch: AppSwitch
) -> None:
    metrics = Metrics()
    server.config.load()
    async with (
        _refreshing(server, front.config.http),
        running(_heartbeat(front, app_switch)),
        running(_supervise(front, vllm_args, registry, app_switch, metrics)) as supervising,
    ):
        serving = asyncio.create_task(server.serve(front.sockets))
        await asyncio.wait({serving, supervising}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        if supervising.done():
            supervising.result()


@asynccontextmanager
async def _refreshing(server: uvicorn.Server, options: HttpOptions) -> AsyncIterator[None]:
    """Read changed TLS files while the context is open, if --enable-ssl-refresh asks for it."""
    if server.config.ssl is None or not options.enable_ssl_refresh:
        yield
        return
    async with running(refresh(server.config.ssl, options)):
        yield


async def _supervise(
    front: Front, vllm_args: Sequence[str], registry: Registry, app_switch: AppSwitch, metrics: Metrics
) -> None:
    """Load vLLM, then keep an engine running. Raises LoraComposeError if the first one does not start."""
    config, auth = front.config, front.auth
    logger.info("loading %s; %s answers 503 until it is ready", config.model, front.url)
    logger.info("importing vLLM")
    args = await _load_vllm(front, vllm_args)
    logger.info("starting the engine: it loads the weights and makes the KV cache")
    names = args.served_model_name or [args.model]
    registry.reserve(names)
    modules = read_modules(config.lora_modules)
    # These import torch, or vLLM: `_load_vllm` has done so in its thread.
    from lora_compose.server.app import create_app
    from lora_compose.server.assembly import assemble
    from lora_compose.server.engine.frontend.launch import launch
    from lora_compose.server.preloading import register_modules

    @asynccontextmanager
    async def start() -> AsyncIterator[AppState]:
        async with launch(args, lora_requests_info=config.lora_requests_info) as engine:
            # When the engine dies, vLLM's error handler stops the server that it finds here. Ours continues.
            engine.app.state.server = SimpleNamespace(should_exit=False)
            async with assemble(config, engine, registry, auth.keyring.traffic, metrics) as state:
                if not supervisor.up.is_set():
                    await run_in_threadpool(
                        register_modules, state["registration"], modules, {args.model, *names}
                    )
                yield state

    supervisor = Supervisor(start, lambda state: create_app(state, auth), app_switch, metrics)
    async with running(_when(supervisor.up, lambda: front.log_ready(args.model))):
        try:
            await supervisor.run()
        except LoraComposeError:
            raise
        except Exception as error:
            logger.debug("the engine could not be started", exc_info=True)
            raise _not_started(error) from error


async def _when(event: asyncio.Event, act: Callable[[], None]) -> None:
    await event.wait()
    act()


async def _heartbeat(front: Front, app_switch: AppSwitch) -> None:
    """Say every HEARTBEAT_SECONDS that the server is still loading, until it serves."""
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS)
        if app_switch.state is not None:
            return
        seconds, used = time.monotonic() - front.started, memory_of(multiprocessing.active_children())
        engine = f": the engine uses {used / GIB:.1f} GiB" if used else ""
        logger.info("still loading after %.0f s%s", seconds, engine)


def _not_started(error: Exception) -> LoraComposeError:
    cause = " ".join(str(error).split()) or type(error).__name__
    return LoraComposeError(CommandCode.ENGINE_NOT_STARTED, f"The engine could not be started: {cause}")


async def _load_vllm(front: Front, vllm_args: Sequence[str]) -> Namespace:
    """Import vLLM and parse its options in a thread, because both take seconds."""

    def load() -> Namespace:
        for module in ("app", "assembly", "engine.frontend.launch"):
            import_module(f"lora_compose.server.{module}")
        return vllm_namespace(front.config, vllm_args)

    try:
        args = await in_loading_thread(load)
    except SystemExit as error:
        message = "vLLM ended while it read the options."
        raise LoraComposeError(CommandCode.INVALID_OPTION, message) from error
    except LoraComposeError:
        raise
    except Exception as error:
        logger.debug("vLLM could not be loaded", exc_info=True)
        raise _not_started(error) from error
    return args
