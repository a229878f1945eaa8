"""The options of `lora-compose serve` that are not options of vLLM."""

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from pydantic import with_config

from lora_compose.adapters.command_line import default_data_dir
from lora_compose.adapters.dataclass_options import ATTRIBUTE_DOCSTRINGS
from lora_compose.server.fusion.policy import FusePolicySettings
from lora_compose.server.http.logs import LogFormat, LogLevel

EMBEDDED_BASE = Path(__file__).resolve().parent.parent / "training" / "testbed" / "base"
EMBEDDED_OPTIONS = (
    "--served-model-name",
    "testbed-base",
    "--tool-call-parser",
    "hermes",
    "--enable-auto-tool-choice",
)


@with_config(ATTRIBUTE_DOCSTRINGS)
@dataclass(frozen=True)
class ServerConfig:
    """The options of `lora-compose serve`. `options_from` makes a flag of each field.

    Raises ValueError with the flag and its value if the value is not valid.
    """

    model: str = str(EMBEDDED_BASE)
    """A causal language model: a directory or a Hugging Face hub id. Default: this project's small base."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """Port to listen on."""
    data_dir: Path = field(default_factory=default_data_dir, metadata={"metavar": "DIR"})
    """Directory of the registry. It keeps adapters, aliases and saved compositions across restarts."""
    adapter_roots: tuple[Path, ...] = field(default=(), metadata={"flag": "--adapter-root", "metavar": "DIR"})
    """A directory from which clients may register adapters by path."""
    allow_hf: bool = False
    """Let clients register adapters from the Hugging Face Hub."""
    strict: bool = False
    """Refuse an adapter whose config names another base. Without this option, only warn."""
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
    log_level: LogLevel = "info"
    """Log lines from this level on. debug: also vLLM's lines, and tracebacks of failed starts."""
    lora_requests_info: bool = False
    """Publish the metric `vllm:lora_requests_info`, for routers that choose a server by its adapters."""
    max_adapter_bytes: int = field(default=4 * 1024**3, metadata={"metavar": "BYTES"})
    """Largest weights file that is accepted."""
    auto_fuse: bool = False
    """Automatically fuse the most-used composition when that saves time, and restore the base when it stops
    saving time."""
    fuse_settings: FusePolicySettings = field(default_factory=FusePolicySettings, metadata={"prefix": "fuse"})
    """How soon `--auto-fuse` fuses and restores."""

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
        if "" in self.api_keys:
            raise ValueError("--api-key must not be empty")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        hosts = [self.host] if self.admin_port is None else [self.host, self.admin_host]
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
