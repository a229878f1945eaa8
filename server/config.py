"""The options of `lora-compose serve` that are not options of vLLM."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from pydantic import with_config

from lora_compose.adapters.command_line import default_data_dir
from lora_compose.adapters.dataclass_options import ATTRIBUTE_DOCSTRINGS
from lora_compose.adapters.models.cache import name_of
from lora_compose.server.fusion.policy import FusePolicySettings
from lora_compose.server.http.logs import LogFormat, LogLevel
from lora_compose.server.options.http_options import HttpOptions
from lora_compose.server.options.lora_modules import read_modules

EMBEDDED_BASE = Path(__file__).resolve().parent.parent / "training" / "testbed" / "base"
MAX_KEEP = 1_000_000
_EMBEDDED = (
    ("--served-model-name", "testbed-base"),
    ("--tool-call-parser", "hermes"),
    ("--enable-auto-tool-choice",),
)
EMBEDDED_OPTIONS = tuple(word for option in _EMBEDDED for word in option)


def options_of_base(config: "ServerConfig", vllm_args: Sequence[str]) -> list[str]:
    """vLLM's options for the embedded base or a known model, without those that are in `vllm_args`.

    Requests use the name of a known model, and not its directory in the cache."""
    name = name_of(config.model)
    options: Sequence[tuple[str, ...]] = _EMBEDDED if config.is_embedded else ()
    options = options if name is None else (("--served-model-name", name),)
    given = {word.partition("=")[0] for word in vllm_args}
    return [word for option in options if option[0] not in given for word in option]


@with_config(ATTRIBUTE_DOCSTRINGS)
@dataclass(frozen=True)
class ServerConfig:
    """The options of `lora-compose serve`. `options_from` makes a flag of each field.

    Raises ValueError with the flag and its value if the value is not valid.
    """

    model: str = str(EMBEDDED_BASE)
    """A causal language model: a directory, a Hugging Face hub id, or a name of `lora-compose models list`.
    Default: this project's small base."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """Port to listen on."""
    data_dir: Path = field(default_factory=default_data_dir, metadata={"metavar": "DIR"})
    """Directory of the registry. It keeps adapters, aliases and saved compositions across restarts."""
    adapter_roots: tuple[Path, ...] = field(default=(), metadata={"flag": "--adapter-root", "metavar": "DIR"})
    """A directory from which clients may register adapters by path."""
    lora_modules: tuple[str, ...] = field(default=(), metadata={"metavar": "NAME=PATH"})
    """An adapter to register when the server starts: its name, and a directory or a Hub repository."""
    allow_hf: bool = False
    """Let clients register adapters from the Hugging Face Hub."""
    strict: bool = False
    """Refuse an adapter whose config names another base. Without this option, only warn."""
    accept_bases: tuple[str, ...] = field(default=(), metadata={"flag": "--accept-base", "metavar": "BASE"})
    """Also serve versions that were registered for this other base: its name, or the first digits of its
    fingerprint. Their shapes must fit."""
    keep_versions: int | None = field(default=None, metadata={"metavar": "N", "show_default": False})
    """Keep only the newest N versions of each name, and the older ones that something needs. Default: all."""
    api_keys: tuple[str, ...] = field(
        default=(), metadata={"flag": "--api-key", "envvar": "LORA_COMPOSE_API_KEY", "metavar": "KEY"}
    )
    """An API key that may do everything, in addition to the keys of `lora-compose keys`. If there is any key,
    every request needs one."""
    admin_port: int | None = field(default=None, metadata={"show_default": False})
    """A second port for administration. The main port then answers inference requests only."""
    admin_host: str = "127.0.0.1"
    """Address of the administration port."""
    hang_seconds: float = 30.0
    """Restart the engine after this many seconds without a reply and without CPU use."""
    log_format: LogFormat = "text"
    """Format of log lines: text, or json with one object per line, also for vLLM's lines."""
    log_level: LogLevel = field(default="info", metadata={"case_sensitive": False})
    """Log lines from this level on. debug: also vLLM's lines, and tracebacks of failed starts."""
    lora_requests_info: bool = False
    """Publish the metric `vllm:lora_requests_info`, for routers that choose a server by its adapters."""
    max_adapter_bytes: int = field(default=4 * 1024**3, metadata={"metavar": "BYTES"})
    """Largest weights file that is accepted."""
    merge_cache_bytes: int = field(default=10 * 1024**3, metadata={"metavar": "BYTES"})
    """Disk space for built merges. The least recently used ones are deleted first."""
    auto_fuse: bool = False
    """Automatically fuse the most-used composition when that saves time, and restore the base when it stops
    saving time."""
    fuse_settings: FusePolicySettings = field(default_factory=FusePolicySettings, metadata={"prefix": "fuse"})
    """How soon `--auto-fuse` fuses and restores."""
    http: HttpOptions = field(default_factory=HttpOptions)

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise ValueError(f"--port ({self.port}) must be between 1 and 65535")
        if self.admin_port is not None and not (0 < self.admin_port < 65536 and self.admin_port != self.port):
            raise ValueError(f"--admin-port ({self.admin_port}) must be between 1 and 65535 and not --port")
        if self.hang_seconds < 2:
            raise ValueError(f"--hang-seconds ({self.hang_seconds}) must be at least 2")
        for root in self.adapter_roots:
            if not root.is_dir():
                raise ValueError(f"--adapter-root ({root}) must be a directory")
        if self.model.startswith(("/", "./", "../", "~")) and not Path(self.model).is_dir():
            raise ValueError(f"--model ({self.model}) must be a directory or a hub id")
        self._check_registry()
        if "" in self.api_keys:
            raise ValueError("--api-key must not be empty")
        read_modules(self.lora_modules)

    def _check_registry(self) -> None:
        if self.keep_versions is not None and not 0 < self.keep_versions <= MAX_KEEP:
            raise ValueError(f"--keep-versions ({self.keep_versions}) must be between 1 and {MAX_KEEP}")
        if self.merge_cache_bytes < 0:
            raise ValueError(f"--merge-cache-bytes ({self.merge_cache_bytes}) must not be negative")
        if "" in self.accept_bases:
            raise ValueError("--accept-base must not be empty")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        hosts = [self.host] if self.http.uds is None else []
        hosts += [] if self.admin_port is None else [self.admin_host]
        return all(map(_is_loopback, hosts))

    @property
    def is_embedded(self) -> bool:
        """Whether the base is the small one that is part of this project."""
        return Path(self.model).is_dir() and Path(self.model).resolve() == EMBEDDED_BASE


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
