"""A real server with keys, an admin port, JSON logs and traces."""

import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import httpx
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from lora_compose.server.client.process import COMMAND, free_port
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.running_server import RunningServer

OPERATOR_KEY = "the-operator-s-key"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span that it receives."""

    def __init__(self) -> None:
        self.endpoint = ""
        self._spans: list[Any] = []
        self._arrived = threading.Condition()

    def Export(self, request: Any, context: Any) -> Any:
        with self._arrived:
            for resource in request.resource_spans:
                for scope in resource.scope_spans:
                    self._spans += scope.spans
            self._arrived.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def of_trace(self, trace: str) -> dict[str, Any]:
        """The spans received so far, by name."""
        return {span.name: span for span in self._spans if span.trace_id.hex() == trace}

    def wait_for(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Wait for spans until `holds` is true. Returns whether it became true."""
        with self._arrived:
            return self._arrived.wait_for(holds, seconds)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a loopback port."""
    server, found = grpc.server(ThreadPoolExecutor(2)), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(found, server)  # type: ignore[no-untyped-call]
    found.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield found
    server.stop(None).wait()


@dataclass(frozen=True)
class GuardedServer:
    """`url` is the port for inference, `admin_url` the port for all requests."""

    home: Path
    running: RunningServer
    admin_url: str

    @property
    def url(self) -> str:
        return self.running.url

    def client(self, secret: str = OPERATOR_KEY, *, admin: bool = True) -> httpx.Client:
        headers = {"authorization": f"Bearer {secret}"}
        return httpx.Client(base_url=self.admin_url if admin else self.url, headers=headers, timeout=60)

    def keys(self, *arguments: str) -> Any:
        """The output of `lora-compose keys ... --json`."""
        command = [COMMAND, "keys", *arguments, "--data-dir", str(self.home / "data"), "--json"]
        return json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    def register(self, names: Sequence[str]) -> None:
        """Register shipped adapters under their own names."""
        with self.client() as operator:
            for name in names:
                body = {"name": name, "path": str(ADAPTERS_DIR / name)}
                operator.post("/v1/adapters", json=body).raise_for_status()


@contextmanager
def guarded_server(home: Path, collector: Collector) -> Iterator[GuardedServer]:
    port = free_port()
    options = ["--adapter-root", str(ADAPTERS_DIR), "--api-key", OPERATOR_KEY, "--admin-port", str(port)]
    options += ["--log-format", "json", "--otlp-traces-endpoint", collector.endpoint]
    options.append("--enable-prompt-tokens-details")
    running = RunningServer.start(home / "data", home / "log", options)
    try:
        running.wait_until_ready()
        yield GuardedServer(home, running, f"http://127.0.0.1:{port}")
    finally:
        running.stop()
