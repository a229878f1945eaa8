"""Plain words for the arms, the loads and the columns of a report."""

from lora_compose.benchmarks.serving.results.plan import Cell, parse_arm

ARMS = {
    "base": "base, no adapter",
    "direct": "base, vLLM's own HTTP app",
    "single": "one adapter",
    "stack": "stack of {}",
    "merge": "{} merged into one",
    "fused": "{} fused into the base",
    "residual": "base, while {} are fused",
    "vllm": "stock vLLM, sum of {}",
    "peft": "transformers + PEFT, sum of {}",
}
"""What each kind of arm is. `{}` is the number of adapters; the sum of one adapter is that adapter."""
TERMS = (
    ("TTFT", "time to the first token"),
    ("TPOT", "time per token after the first"),
    ("ITL", "time between two pieces of the answer"),
    ("E2EL", "time to the end of the answer"),
    ("p90, p99", "90 % and 99 % of the requests took less. A dash: too few requests to say"),
    ("vs base", "divided by the base's value in the same repeat; in brackets the 95 % interval"),
)


def arm_words(arm: str) -> str:
    """An arm in plain words, such as `stack of 4`. An arm of another kind is its name."""
    parsed = parse_arm(arm)
    if parsed.members == 1:
        return ARMS.get(parsed.kind, arm).replace("sum of {}", "{}").format("one adapter")
    return ARMS.get(parsed.kind, arm).format(f"{parsed.members} adapters")


def is_ours(arm: str) -> bool:
    """Whether our server serves this arm."""
    return parse_arm(arm).server == "lora-compose"


def load_words(cell: Cell) -> str:
    """What the load of a cell is, and what it measures."""
    if cell.is_heat_map:
        return f"Stacks of generated adapters. {_closed(cell)}"
    if cell.loop == "closed":
        return _closed(cell)
    return (
        f"Open loop: {cell.rate:g} requests a second are sent at random times, however busy the server is. "
        "This measures latency. It counts from the time when a request was due."
    )


def _closed(cell: Cell) -> str:
    return (
        f"Closed loop: {cell.concurrency} requests are in flight, and the next starts as soon as one ends. "
        "This measures how much the machine can do."
    )
