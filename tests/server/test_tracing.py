"""A request's trace, from the client's span through ours to vLLM's, as an OTLP collector gets it."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tests.running_server import RunningServer
from training.testbed.paths import ADAPTERS_DIR

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps every span it is sent."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans += scope.spans
        return trace_service_pb2.ExportTraceServiceResponse()

    def of_trace(self) -> dict[str, Any]:
        return {span.name: span for span in self.spans if span.trace_id.hex() == TRACE}


@pytest.fixture
def collector() -> Iterator[tuple[Collector, int]]:
    server, found = grpc.server(ThreadPoolExecutor(2)), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(found, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield found, port
    server.stop(None).wait()


def wait_for(found: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not found() and time.monotonic() < deadline:
        time.sleep(0.1)


def test_our_spans_and_vllm_s_hang_under_the_client_s(
    collector: tuple[Collector, int], tmp_path: Path
) -> None:
    found, port = collector
    options = ["--adapter-root", str(ADAPTERS_DIR), "--otlp-traces-endpoint", f"http://127.0.0.1:{port}"]
    running = RunningServer.start(tmp_path / "data", tmp_path / "log", options)
    try:
        running.wait_until_ready()
        for name in ("roll", "upper"):
            body = {"name": name, "path": str(ADAPTERS_DIR / name)}
            httpx.post(f"{running.url}/v1/adapters", json=body, timeout=30).raise_for_status()
        asked = {"model": "roll+upper", "prompt": "roll table", "max_tokens": 2}
        headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
        httpx.post(f"{running.url}/v1/completions", json=asked, headers=headers).raise_for_status()
        wait_for(lambda: len(found.of_trace()) >= 5)
    finally:
        running.stop()
    spans = found.of_trace()
    ours = spans["POST /v1/completions"]
    assert ours.parent_span_id.hex() == SPAN
    names = ("lora_compose.resolve", "lora_compose.merge", "lora_compose.prepare", "llm_request")
    assert {spans[name].parent_span_id for name in names} == {ours.span_id}
