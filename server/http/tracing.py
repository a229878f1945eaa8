"""OpenTelemetry: our part of a request's trace, beside vLLM's.

vLLM's `--otlp-traces-endpoint` sets the provider; without it every span here is none, and a client's
`traceparent` goes on to vLLM as it came.
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
    """A span under the client's, for as long as the request is answered; yields the scope that names it."""
    given = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _HEADERS}
    name, context = f"{scope['method']} {scope['path']}", _PROPAGATOR.extract(given)
    with _TRACER.start_as_current_span(name, context=context, kind=SpanKind.SERVER):
        told: dict[str, str] = {}
        _PROPAGATOR.inject(told)
        others = [header for header in scope["headers"] if header[0] not in _HEADERS]
        own = [(name.encode(), value.encode("latin-1")) for name, value in told.items()]
        yield {**scope, "headers": [*others, *own]}


def step(name: str) -> AbstractContextManager[Span]:
    """A span of one part of the work: `resolve`, `merge`, `prepare`."""
    return _TRACER.start_as_current_span(f"lora_compose.{name}")
