"""What a benchmark over HTTP may be asked for: read from JSON, bounded, and written as arguments.

Nothing here changes what others are answered: arms that fuse the base or start processes are refused.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from adapters.composition_grammar import parse_reference
from adapters.errors import InvalidRequest
from adapters.registry import Registry
from server.request_body import check_fields

ARM = re.compile(r"base|single|(?:stack|merge):([1-8])")
LONGEST_LIST = 16
DEFAULT_ADAPTERS = 8
BOUNDS = {
    "requests": (1, 1000),
    "output_tokens": (2, 4096),
    "prompt_tokens": (1, 4096),
    "repeats": (1, 20),
    "seed": (0, 2**31 - 1),
    "max_seconds": (1, 1800),
}
MAX_CONCURRENCY, MAX_RATE = 64, 1000.0


@dataclass(frozen=True)
class BenchmarkPlan:
    """A bounded benchmark. Every adapter is registered, and every arm has adapters enough."""

    adapters: tuple[str, ...]
    arms: tuple[str, ...]
    concurrency: tuple[int, ...] = (4,)
    rates: tuple[float, ...] = (2.0,)
    requests: int = 16
    output_tokens: int = 32
    prompt_tokens: int = 32
    repeats: int = 5
    seed: int = 0
    max_seconds: int = 300
    """No pass begins later."""
    force: bool = False
    """Begin and go on however busy the server is."""

    def to_json(self) -> dict[str, Any]:
        """As it could be sent again."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def arguments(self) -> list[str]:
        """For `python -m benchmarks.latency`. No timeline: it would register adapters and fuse."""
        found = ["--timeline-seconds", "0"]
        for name, value in self.to_json().items():
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            if name != "force" and text:
                found += [f"--{name.replace('_', '-')}", text]
        return found


FIELDS = frozenset(BenchmarkPlan.__dataclass_fields__)


def read_plan(body: dict[str, Any], registry: Registry, max_model_len: int) -> BenchmarkPlan:
    """Raises InvalidRequest, naming the field, and NotFound for an adapter that is not registered."""
    check_fields(body, FIELDS)
    adapters = _adapters(body, registry)
    given: dict[str, Any] = {name: _whole(body[name], name) for name in BOUNDS if name in body}
    if "concurrency" in body:
        given["concurrency"] = _listed(body, "concurrency", _is_concurrency, f"1 to {MAX_CONCURRENCY}")
    if "rates" in body:
        given["rates"] = _listed(body, "rates", _is_rate, f"above 0, at most {MAX_RATE:g} a second")
    force = body.get("force", False)
    if not isinstance(force, bool):
        raise InvalidRequest("invalid_request", "force must be true or false.", "force")
    plan = BenchmarkPlan(adapters, _arms(body, len(adapters)), force=force, **given)
    if plan.prompt_tokens + plan.output_tokens > max_model_len:
        raise InvalidRequest(
            "out_of_range",
            f"prompt_tokens and output_tokens together must be at most {max_model_len}, the model's length.",
            "output_tokens" if "output_tokens" in body else "prompt_tokens",
        )
    return plan


def _whole(value: object, name: str) -> int:
    low, high = BOUNDS[name]
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidRequest("out_of_range", f"{name} must be a whole number from {low} to {high}.", name)
    return value


def _listed(body: dict[str, Any], name: str, is_good: Callable[[object], bool], says: str) -> tuple[Any, ...]:
    values = body[name]
    if not isinstance(values, list) or not 1 <= len(values) <= LONGEST_LIST:
        raise InvalidRequest("out_of_range", f"{name} must be a list of 1 to {LONGEST_LIST}.", name)
    if not all(map(is_good, values)):
        raise InvalidRequest("out_of_range", f"{name}: each must be {says}.", name)
    return tuple(values)


def _is_concurrency(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_CONCURRENCY


def _is_rate(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 < value <= MAX_RATE  # type: ignore[arg-type,operator]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _adapters(body: dict[str, Any], registry: Registry) -> tuple[str, ...]:
    """Those asked for; without any, the first of the registered ones."""
    if "adapters" not in body:
        return tuple(sorted(registry.names())[:DEFAULT_ADAPTERS])
    names = _listed(body, "adapters", _is_text, "an adapter's name")
    for name in names:
        registry.resolve(*parse_reference(name, "adapters"))
    _refuse_twice(names, "adapters")
    return names


def _arms(body: dict[str, Any], adapters: int) -> tuple[str, ...]:
    """Those asked for; without any, as many of base, single and stack:2 as there are adapters for."""
    if "arms" not in body:
        return ("base", "single", "stack:2")[: 1 + adapters]
    arms = _listed(body, "arms", _is_text, "an arm's name")
    _refuse_twice(arms, "arms")
    for arm in arms:
        match = ARM.fullmatch(arm)
        if match is None:
            raise InvalidRequest(
                "arm_not_allowed",
                f"The arm {arm!r:.80} cannot be run over HTTP: base, single, stack:1 to stack:8 and merge:1 "
                "to merge:8 can. `lora-compose bench serve` runs all of them.",
                "arms",
            )
        needed = int(match[1] or 1) if arm != "base" else 0
        if needed > adapters:
            raise InvalidRequest(
                "too_few_adapters", f"The arm {arm} needs {needed} adapters, not {adapters}.", "arms"
            )
    return arms


def _refuse_twice(values: Sequence[str], name: str) -> None:
    if len(set(values)) < len(values):
        raise InvalidRequest("given_twice", f"{name} must differ from each other.", name)
