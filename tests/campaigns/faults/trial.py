"""Tries faults on a target, and checks the target after each."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from tests.campaigns.faults import (
    bodies,
    credentials,
    files,
    lifecycles,
    machine,
    naming,
    naming_adapters,
    sources,
)
from tests.campaigns.faults.fault import Act, Fault, Outcome
from tests.campaigns.faults.surroundings import audit_lines, descriptors, differences, surroundings
from tests.campaigns.faults.target import Target

MODULES = (naming, sources, files, bodies, naming_adapters, credentials, lifecycles, machine)
FAULTS: tuple[Fault, ...] = tuple(fault for module in MODULES for fault in module.FAULTS)


def tried(target: Target, fault: Fault, each: bool, done: Callable[[], object] = lambda: None) -> Outcome:
    """Try every variant of a fault.

    The target is checked after every variant with `each`, else at the end.
    """
    outcome = Outcome(fault.title)
    began = time.monotonic()
    before, files, lines = surroundings(target), descriptors(target), audit_lines(target)
    for name, act in fault.variants.items():
        _try(outcome, name, act, target)
        if each:
            outcome.wrong += [f"after {name}: {found}" for found in differences(before, surroundings(target))]
        done()
    outcome.wrong += [f"afterwards: {found}" for found in differences(before, surroundings(target))]
    if (left := descriptors(target, at_most=files)) > files:
        outcome.wrong.append(f"descriptors: {left}, were {files}")
    if fault.audited and audit_lines(target) - lines < outcome.variants:
        outcome.wrong.append(f"{audit_lines(target) - lines} lines in the audit log")
    outcome.seconds = time.monotonic() - began
    return outcome


def _try(outcome: Outcome, name: str, act: Act, target: Target) -> None:
    outcome.variants += 1
    try:
        replies: Iterable[Any] = list(act(target))
    except Exception as error:  # noqa: BLE001  every exception is a finding
        outcome.wrong.append(f"{name}: {type(error).__name__}: {str(error)[:300]}")
        return
    for reply in replies:
        outcome.replies[reply] = outcome.replies.get(reply, 0) + 1
