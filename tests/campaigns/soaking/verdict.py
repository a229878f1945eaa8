"""Judges the answers: each must be right, or its failure must have a known reason."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.campaigns.soaking.expected_state import BASE, ExpectedState, adapter_version
from tests.campaigns.soaking.fault_injection import Fault
from tests.campaigns.soaking.requests import Answer

AFTER_SECONDS = 3.0
NOT_FOUND = "404 model_not_found"


def judge(answers: Sequence[Answer], faults: Sequence[Fault], known: ExpectedState) -> dict[str, Any]:
    """Counts of the verdicts, and every answer that was wrong or failed without a known reason."""
    counts: Counter[str] = Counter()
    bad = []
    for answer in answers:
        verdict = _verdict(answer, faults, known)
        counts[verdict.partition(":")[0]] += 1
        if verdict.startswith(("wrong", "unexplained")):
            bad.append({"verdict": verdict, **vars(answer)})
    kinds = Counter(answer.kind for answer in answers if answer.failure is None and not answer.cut)
    return {"counts": dict(counts), "whole_by_kind": dict(kinds), "bad": bad[:50], "bad_count": len(bad)}


def _verdict(answer: Answer, faults: Sequence[Fault], known: ExpectedState) -> str:
    if answer.failure is not None:
        return _reason(answer, faults, known)
    version = adapter_version(answer.answered_by)
    if answer.kind == BASE:
        content = BASE
    elif version is None or version not in known.history:
        return "wrong: this version was never registered"
    else:
        number = int(version.partition("@")[2])
        if number not in known.could_mean(answer.reference, answer.sent, answer.ended):
            return "wrong: the name did not mean this version then"
        content = known.history[version]
    if answer.cut:
        return "cut by the client"
    expected = known.truth[answer.kind, content, answer.prompt]
    return "right" if expected.accepts(answer.ids) and len(answer.ids) == len(expected.ids) else "wrong: text"


def _reason(answer: Answer, faults: Sequence[Fault], known: ExpectedState) -> str:
    for fault in faults:
        if fault.stops_engine and fault.began <= answer.ended and answer.sent <= fault.ended + AFTER_SECONDS:
            return f"failed by a fault: {fault.name}"
    if answer.failure == NOT_FOUND and None in known.could_mean(answer.reference, answer.sent, answer.ended):
        return "failed, because it was removed"
    return f"unexplained: {answer.failure}"
