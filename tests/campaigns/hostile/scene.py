"""The server of the campaign, as an operator would set it up: a key for each tenant, and quotas."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from lora_compose.server.client.http import Client
from lora_compose.server.tenants.key import Key, Quotas
from lora_compose.server.tenants.key_store import KeyStore
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.campaigns.hostile.attacks import ADAPTERS
from tests.running_server import RunningServer

# The quotas that docs/operations.md recommends for a server of this size.
QUOTAS = Quotas(
    requests_per_minute=600,
    tokens_per_minute=60_000,
    in_flight=3,
    builds_per_hour=60,
    adapters=50,
    adapter_bytes=100_000_000,
)
OPTIONS = (
    *("--max-num-batched-tokens", "128", "--max-num-seqs", "64"),
    *("--long-prefill-token-threshold", "32", "--long-prefill-token-threshold-adaptive"),
)
OPERATOR, VICTIM = "operator", "victim"


@dataclass(frozen=True)
class Scene:
    """A running server, and the secrets of its keys by name."""

    server: RunningServer
    secrets: dict[str, str]
    data_dir: Path

    @property
    def port(self) -> int:
        """The port of the server on 127.0.0.1."""
        return httpx.URL(self.server.url).port or 0

    def hostile_key(self, name: str, quotas: bool) -> str:
        """The secret of a new key with an unused quota. The server accepts it within a second."""
        key = Key("", name, "admin", (f"{name}-*", *ADAPTERS), QUOTAS if quotas else Quotas())
        with KeyStore(self.data_dir) as store:
            return store.create(key)[1]


@contextmanager
def scene(home: Path, options: Sequence[str] = OPTIONS) -> Iterator[Scene]:
    """Runs a server with keys and adapters until the context closes."""
    secrets = _make_keys(home / "data")
    server = RunningServer.start(home / "data", home / "log", ["--adapter-root", str(ADAPTERS_DIR), *options])
    try:
        server.wait_until_ready()
        with Client(server.url, secrets[OPERATOR]) as client:
            for name in ADAPTERS:
                client.register({"name": name, "path": str(ADAPTERS_DIR / name)})
        yield Scene(server, secrets, home / "data")
    finally:
        server.stop()


def _make_keys(data_dir: Path) -> dict[str, str]:
    keys = [
        Key("", OPERATOR, "admin"),
        Key("", VICTIM, "inference"),
    ]
    with KeyStore(data_dir) as store:
        return {key.name: store.create(key)[1] for key in keys}
