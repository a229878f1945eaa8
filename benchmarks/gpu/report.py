"""Markdown tables of findings. `python -m lora_compose.benchmarks.gpu.report FILE...` prints them.

Pure functions of the JSON lines. A table is left out if the files have no findings for it.
"""

import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

Finding = dict[str, Any]

REQUESTS = {
    "throughput:base": "base",
    "throughput:single": "one adapter",
    "throughput:singles7": "seven different adapters",
    "throughput:stack4": "one stack of four",
    "throughput:stacks6": "six different stacks of four",
    "throughput:half-base-half-stack4": "half base, half a stack of four",
    "throughput while stack4 is fused:stack4": "the stack itself, while it is fused",
    "throughput while stack4 is fused:base": "base, while the stack is fused",
    "throughput while stack4 is fused:single": "one adapter, while the stack is fused",
}
MIXES = {
    "base": "base",
    "single": "one adapter",
    "half": "one adapter at weight 0.5",
    "stack2": "stack of two",
    "stack4": "stack of four",
}
MODES = {"small": "eager", "graphs": "graphs"}
WHEN = {"": "before", "stack2": "fused", "restored": "restored"}
NONE = "-"
"""A cell that was not measured."""


def read(paths: Iterable[Path]) -> list[Finding]:
    """The findings of all files, in order."""
    return [json.loads(line) for path in paths for line in path.read_text().splitlines() if line]


def speed_table(findings: Sequence[Finding]) -> str:
    """Tokens a second, their ratio to the base's, and the median decode step: the mean of the repeats."""
    cells = [one for one in findings if one["check"] in REQUESTS]
    counts = sorted({one["concurrent"] for one in cells})
    headers = [
        f"{count} in flight: {what}" for count in counts for what in ("tokens/s", "to base", "step, ms")
    ]
    rows = [
        [name, *(text for count in counts for text in _speed(cells, check, count))]
        for check, name in REQUESTS.items()
    ]
    return _table(["requests", *headers], rows) if cells else ""


def _speed(cells: Sequence[Finding], check: str, count: int) -> tuple[str, str, str]:
    found = [one for one in cells if (one["check"], one["concurrent"]) == (check, count)]
    base = [one for one in cells if (one["check"], one["concurrent"]) == ("throughput:base", count)]
    if not found or not base:
        return NONE, NONE, NONE
    speed, step = _mean(found, "tokens_per_second"), _mean(found, "decode_ms_p50")
    return f"{speed:,.0f}", f"{speed / _mean(base, 'tokens_per_second'):.3f}", f"{step:.2f}"


def answers_table(findings: Sequence[Finding]) -> str:
    """Mean |Δ logprob| to the dense reference, of the mixed batch and of a batch of its own.

    Last, the least distance of a mix's answers to the base: what an engine without LoRA would show.
    """
    cells = {
        (one["part"], one["check"].removeprefix("logprobs:"), one["fused"]): one
        for one in findings
        if one["check"].startswith("logprobs:")
    }
    headers = [f"{mode}, {when}" for mode in MODES.values() for when in WHEN.values()]
    rows = []
    for mix, name in MIXES.items():
        found = [cells.get((part, mix, fused)) for part in MODES for fused in WHEN]
        errors = [f"{one['mixed_batch']:.4f} / {one['alone']:.4f}" if one else NONE for one in found]
        apart = [one["against_base"] for one in found if one and mix != "base"]
        rows.append([name, *errors, f"{min(apart):.2f}" if apart else NONE])
    return _table(["composition", *headers, "wrong mix"], rows) if cells else ""


def kernel_table(findings: Sequence[Finding]) -> str:
    """Microseconds of a call in a CUDA graph, and the relative error to float64, of both ways."""
    cells = [one for one in findings if one["check"].startswith("kernels:")]
    headers = ["layer", "rows", "vLLM's, µs", "weighted, µs", "vLLM's error", "weighted error"]
    rows = [
        [
            one["check"].removeprefix("kernels:"),
            str(one["rows"]),
            *(f"{one[f'{way}_us']:.1f}" if f"{way}_us" in one else NONE for way in ("upstream", "weighted")),
            *(f"{one[f'{way}_error']:.4f}" for way in ("upstream", "weighted")),
        ]
        for one in cells
    ]
    return _table(headers, rows) if cells else ""


def pooled_table(findings: Sequence[Finding]) -> str:
    """Microseconds of a call of our kernels in a CUDA graph, by the requests of the batch."""
    cells = {
        (*one["check"].split(":")[1:], one["rows"]): one
        for one in findings
        if one["check"].startswith("pooled:")
    }
    names = list(dict.fromkeys(name for _, name, _ in cells))
    rows = [
        [layer, str(count), *(_microseconds(cells.get((layer, name, count))) for name in names)]
        for layer, count in dict.fromkeys((layer, count) for layer, _, count in cells)
    ]
    return _table(["layer", "rows", *(f"{name}, µs" for name in names)], rows) if cells else ""


def _microseconds(one: Finding | None) -> str:
    return f"{one['us']:.1f}" if one is not None and "us" in one else NONE


TABLES: tuple[Callable[[Sequence[Finding]], str], ...] = (answers_table, speed_table, kernel_table)
"""The tables for one choice of LoRA kernels."""


def by_kernels(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """The findings by LoRA kernels. The first version of the checks had only vLLM's."""
    found: dict[str, list[Finding]] = {}
    for one in findings:
        found.setdefault(one.get("kernels", "vllm"), []).append(one)
    return found


def _mean(findings: Sequence[Finding], name: str) -> float:
    return statistics.fmean(one[name] for one in findings)


def _table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---", *("--:" for _ in headers[1:])], *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(arguments: Sequence[str]) -> None:
    """Print the tables."""
    for kernels, findings in by_kernels(read(map(Path, arguments))).items():
        tables = [text for table in (*TABLES, pooled_table) if (text := table(findings))]
        sys.stdout.write("\n".join([f"LoRA kernels: {kernels}\n", *tables, ""]))


if __name__ == "__main__":
    main(sys.argv[1:])
