"""The options of the HTTP server that vLLM has too, with vLLM's names and meanings."""

from dataclasses import dataclass, field
from importlib import import_module
from inspect import isclass, iscoroutinefunction
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import with_config

from lora_compose.adapters.dataclass_options import ATTRIBUTE_DOCSTRINGS

UvicornLevel = Literal["critical", "error", "warning", "info", "debug", "trace"]
PANEL = {"rich_help_panel": "HTTP options, with the names that vLLM gives them"}


def _http(**settings: Any) -> dict[str, Any]:
    """Settings of an option in this panel of the help; see `dataclass_options`."""
    return {**PANEL, **settings}


@with_config(ATTRIBUTE_DOCSTRINGS)
@dataclass(frozen=True)
class HttpOptions:
    """Raises ValueError with the flag and its value if the value is not valid."""

    uds: Path | None = field(default=None, metadata=_http(metavar="PATH"))
    """Listen on this Unix socket, and not on --host and --port."""
    root_path: str = field(default="", metadata=_http(metavar="PATH"))
    """The path at which a proxy publishes the server, for example /llm. Requests may have it or not."""
    allowed_origins: tuple[str, ...] = field(default=(), metadata=_http(metavar="JSON"))
    """Web pages of these origins may use the server (CORS): a JSON list, '["*"]' for all. Default: none."""
    allowed_methods: tuple[str, ...] = field(
        default=("*",), metadata=_http(metavar="JSON", show_default=False)
    )
    """The HTTP methods that these pages may use. Default: all."""
    allowed_headers: tuple[str, ...] = field(
        default=("*",), metadata=_http(metavar="JSON", show_default=False)
    )
    """The request headers that these pages may send. Default: all."""
    allow_credentials: bool = field(default=False, metadata=PANEL)
    """Let these pages send cookies."""
    middleware: tuple[str, ...] = field(default=(), metadata=_http(metavar="MODULE.NAME"))
    """ASGI middleware around all routes: a class, or an async function of (request, call_next)."""
    ssl_certfile: Path | None = field(default=None, metadata=_http(metavar="FILE"))
    """Serve HTTPS with this certificate."""
    ssl_keyfile: Path | None = field(default=None, metadata=_http(metavar="FILE"))
    """The key of the certificate, if it is in another file."""
    ssl_ca_certs: Path | None = field(default=None, metadata=_http(metavar="FILE"))
    """The certificates that sign those of clients."""
    ssl_cert_reqs: int = field(default=0, metadata=_http(min=0, max=2))
    """Certificates of clients: 0 none, 1 optional, 2 required."""
    ssl_ciphers: str | None = field(default=None, metadata=PANEL)
    """The ciphers of TLS 1.2."""
    enable_ssl_refresh: bool = field(default=False, metadata=PANEL)
    """Read the certificate and the key again when their files change."""
    uvicorn_log_level: UvicornLevel = field(default="warning", metadata=PANEL)
    """The level of uvicorn's own log lines."""
    disable_uvicorn_access_log: bool = field(default=False, metadata=PANEL)
    """Do not log requests."""
    disable_access_log_for_endpoints: tuple[str, ...] = field(
        default=(), metadata=_http(separator=",", metavar="PATHS", show_default=False)
    )
    """Do not log requests for these paths, separated by commas."""
    keep_alive_seconds: int = field(default=5, metadata=_http(min=0, envvar="VLLM_HTTP_TIMEOUT_KEEP_ALIVE"))
    """Close a connection that has been idle for this many seconds."""
    h11_max_incomplete_event_size: int = field(default=64 * 1024, metadata=_http(min=1024, metavar="BYTES"))
    """The largest request line and headers."""
    h11_max_header_count: int = field(default=256, metadata=_http(min=1))
    """The largest number of headers in a request."""
    enable_tokenizer_info_endpoint: bool = field(default=False, metadata=PANEL)
    """Offer /tokenizer_info, which shows the chat template."""
    disable_fastapi_docs: bool = field(default=False, metadata=PANEL)
    """Do not offer /docs and /openapi.json."""

    def __post_init__(self) -> None:
        _check_root_path(self.root_path)
        for origin in self.allowed_origins:
            _check_origin(origin)
        for path in self.middleware:
            middleware_at(path)
        for path in self.disable_access_log_for_endpoints:
            if not path.startswith("/"):
                raise ValueError(f"--disable-access-log-for-endpoints ({path}): a path must begin with /")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.allow_credentials and not self.allowed_origins:
            raise ValueError("--allow-credentials needs --allowed-origins")
        if self.ssl_cert_reqs and self.ssl_ca_certs is None:
            raise ValueError(
                f"--ssl-cert-reqs ({self.ssl_cert_reqs}) needs --ssl-ca-certs to check them with"
            )
        if self.ssl_certfile is None:
            for flag, value in self._tls_flags():
                if value:
                    raise ValueError(f"{flag} needs --ssl-certfile")

    def _tls_flags(self) -> list[tuple[str, object]]:
        return [
            ("--ssl-keyfile", self.ssl_keyfile),
            ("--ssl-ca-certs", self.ssl_ca_certs),
            ("--ssl-cert-reqs", self.ssl_cert_reqs),
            ("--ssl-ciphers", self.ssl_ciphers),
            ("--enable-ssl-refresh", self.enable_ssl_refresh),
        ]

    @property
    def tls(self) -> dict[str, Any]:
        """The arguments of uvicorn's `Config` for TLS; empty without --ssl-certfile."""
        if self.ssl_certfile is None:
            return {}
        files = {"ssl_certfile": self.ssl_certfile, "ssl_keyfile": self.ssl_keyfile}
        more = {
            "ssl_ca_certs": self.ssl_ca_certs and str(self.ssl_ca_certs),
            "ssl_cert_reqs": self.ssl_cert_reqs,
        }
        ciphers = {} if self.ssl_ciphers is None else {"ssl_ciphers": self.ssl_ciphers}
        return {**files, **more, **ciphers}


def _check_root_path(path: str) -> None:
    if path and (not path.startswith("/") or path.endswith("/") or set(path) & set("?#%")):
        raise ValueError(f"--root-path ({path}) must begin with / and not end with it, for example /llm")


def _check_origin(origin: str) -> None:
    """A browser sends scheme, host and port only: an origin with a path would never match."""
    parts = urlsplit(origin)
    if origin not in {"*", "null"} and not (parts.scheme and parts.netloc and not parts.path):
        example = f"{parts.scheme}://{parts.netloc}" if parts.netloc else "https://example.org"
        raise ValueError(f"--allowed-origins ({origin}) must be *, or scheme, host and port: {example}")


def middleware_at(path: str) -> Any:
    """The class or coroutine function at `module.name`. Raises ValueError if it is not there."""
    module, _, name = path.rpartition(".")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"--middleware ({path}) cannot be imported: {error}") from error
    if not (isclass(found) or iscoroutinefunction(found)):
        raise ValueError(f"--middleware ({path}) must be a class or an async function")
    return found
