"""The OpenTelemetry spans of a request in this server. vLLM adds its own spans.

vLLM's option `--otlp-traces-endpoint` sets the trace provider. Without it no spans are recorded, and the
`traceparent` header of a client is forwarded to vLLM unchanged.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.types import Scope

_TRACER = trace.get_tracer("lora_compose")
_PROPAGATOR = TraceContextTextMapPropagator()
_HEADERS = (b"traceparent", b"tracestate")


@contextmanager
def request_span(scope: Scope) -> Iterator[Scope]:
    """Open a span under the client's span. Yields a scope whose headers name the new span as the parent."""
    received = {
        name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _HEADERS
    }
    name, context = f"{scope['method']} {scope['path']}", _PROPAGATOR.extract(received)
    with _TRACER.start_as_current_span(name, context=context, kind=SpanKind.SERVER):
        propagated: dict[str, str] = {}
        _PROPAGATOR.inject(propagated)
        others = [header for header in scope["headers"] if header[0] not in _HEADERS]
        own = [(name.encode(), value.encode("latin-1")) for name, value in propagated.items()]
        yield {**scope, "headers": [*others, *own]}


def step(name: str) -> AbstractContextManager[Span]:
    """A span of one step of a request: `resolve`, `merge` or `prepare`."""
    return _TRACER.start_as_current_span(f"lora_compose.{name}")
