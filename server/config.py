"""Options of `lora-compose serve` that are not vLLM's."""

from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from pydantic import with_config

from lora_compose.adapters.command_line import default_data_dir
from lora_compose.adapters.dataclass_options import ATTRIBUTE_DOCSTRINGS
from lora_compose.server.fusion.policy import FusePolicySettings
from lora_compose.server.http.logs import LogFormat

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
    """The flags of `lora-compose serve`: `options_from` makes an option of each field.

    Raises ValueError with the flag and its value if a value cannot work."""

    model: str = str(EMBEDDED_BASE)
    """A Hugging Face causal LM: directory or hub id. By default the small base that ships with us."""
    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = 8000
    """Port to listen on."""
    data_dir: Path = field(default_factory=default_data_dir, metadata={"metavar": "DIR"})
    """Home of the registry: adapters, aliases and saved compositions survive restarts there."""
    adapter_roots: tuple[Path, ...] = field(default=(), metadata={"flag": "--adapter-root", "metavar": "DIR"})
    """Directories whose adapters may be registered by path."""
    allow_hf: bool = False
    """Let clients register adapters from the Hugging Face Hub."""
    strict: bool = False
    """Refuse adapters that say they were made for another base, instead of warning."""
    api_keys: tuple[str, ...] = field(
        default=(), metadata={"flag": "--api-key", "envvar": "LORA_COMPOSE_API_KEY", "metavar": "KEY"}
    )
    """A key that may do everything, beside those of `lora-compose keys`. With any key, requests need one."""
    admin_port: int | None = field(default=None, metadata={"show_default": False})
    """Port for all but inference, which is then the only thing the other one answers."""
    admin_host: str = "127.0.0.1"
    """Address that port listens on."""
    hang_seconds: float = 30.0
    """An engine that neither answers nor works for so long is ended, and started again."""
    log_format: LogFormat = "text"
    """How log lines look: text, or json with a line for each event, vLLM's included."""
    lora_requests_info: bool = False
    """Publish `vllm:lora_requests_info`, for routers that pick a server by the adapters it runs."""
    max_adapter_bytes: int = field(default=4 * 1024**3, metadata={"metavar": "BYTES"})
    """Largest adapter file accepted."""
    auto_fuse: bool = False
    """Fuse by itself what most tokens go to, when that pays, and restore the base when it no longer does."""
    fuse_settings: FusePolicySettings = field(default_factory=FusePolicySettings, metadata={"prefix": "fuse"})
    """How readily."""

    def __post_init__(self) -> None:
        if not 0 < self.port < 65536:
            raise ValueError(f"--port ({self.port}) must be between 1 and 65535")
        if self.admin_port is not None and not (0 < self.admin_port < 65536 and self.admin_port != self.port):
            raise ValueError(f"--admin-port ({self.admin_port}) must be another one, between 1 and 65535")
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
        """Whether only this machine can reach it."""
        hosts = [self.host] if self.admin_port is None else [self.host, self.admin_host]
        return all(map(_is_loopback, hosts))

    @property
    def is_embedded(self) -> bool:
        """Whether the base is the one that ships with the project."""
        return Path(self.model).is_dir() and Path(self.model).resolve() == EMBEDDED_BASE


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
