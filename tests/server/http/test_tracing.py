"""The trace of a request at an OTLP collector: the client's span, ours, and vLLM's."""

from tests.server.guarded_server import Collector, GuardedServer

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ARRIVAL_SECONDS = 30.0


def test_our_spans_and_vllm_s_hang_under_the_client_s(guarded: GuardedServer, collector: Collector) -> None:
    guarded.register(("roll", "upper"))
    asked = {"model": "roll+upper", "prompt": "roll table", "max_tokens": 2}
    with guarded.client() as http:
        headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
        http.post("/v1/completions", json=asked, headers=headers).raise_for_status()
    assert collector.wait_for(lambda: len(collector.of_trace(TRACE)) >= 5, ARRIVAL_SECONDS)
    spans = collector.of_trace(TRACE)
    ours = spans["POST /v1/completions"]
    assert ours.parent_span_id.hex() == SPAN
    names = ("lora_compose.resolve", "lora_compose.merge", "lora_compose.prepare", "llm_request")
    assert {spans[name].parent_span_id for name in names} == {ours.span_id}
