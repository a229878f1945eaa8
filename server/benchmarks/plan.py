"""The plan of a benchmark over HTTP: its fields, checked against the registry.

A benchmark must not change the answers to other requests, so arms that fuse the base or start processes are
refused.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import Field, PlainValidator

from lora_compose.adapters.composition.grammar import parse_reference
from lora_compose.adapters.errors import Code, InvalidRequest
from lora_compose.adapters.names import REFERENCE_PATTERN
from lora_compose.adapters.registry.registry import Registry
from lora_compose.adapters.validation import ANY, RAISED_BY_VALIDATOR, Fault, Faults
from lora_compose.server.compositions.resolver import Resolver
from lora_compose.server.http.body import Body, matching, text_of

DEFAULT_ADAPTERS = 8
MAX_LIST_LENGTH = 16
MAX_CONCURRENCY, MAX_RATE = 64, 1000.0
BOUNDS = {
    "requests": (1, 1000),
    "output_tokens": (2, 4096),
    "prompt_tokens": (1, 4096),
    "repeats": (1, 20),
    "seed": (0, 2**31 - 1),
    "max_seconds": (1, 1800),
}
ARM_PATTERN = "^(base|single|(stack|merge):[1-8])$"


def _bounded(field: str) -> Any:
    low, high = BOUNDS[field]
    return Field(ge=low, le=high)


def _reference_text(value: object) -> str:
    text = text_of(value)
    parse_reference(text, None)
    return text


def _arm(value: object) -> str:
    text = text_of(value)
    if re.fullmatch(ARM_PATTERN, text):
        return text
    raise InvalidRequest(
        Code.ARM_NOT_ALLOWED,
        f"The arm {text!a:.80} cannot be run over HTTP. Use base, single, stack:1 to stack:8 or merge:1 to "
        "merge:8. The command `lora-compose bench serve` runs every arm.",
    )


def _listed(field: str, entry: str) -> Faults:
    """Faults of a list. Faults of its entries name the list as their param."""
    return {
        (field, ANY): Fault(Code.OUT_OF_RANGE, f"{field} must be a list of 1 to {MAX_LIST_LENGTH} entries."),
        (f"{field}[]", ANY): Fault(Code.OUT_OF_RANGE, f"Each entry of {field} must be {entry}.", field),
        (f"{field}[]", RAISED_BY_VALIDATOR): Fault(Code.OUT_OF_RANGE, "", field),
    }


_BenchmarkAdapter = Annotated[str, PlainValidator(_reference_text), matching(REFERENCE_PATTERN)]
_Arm = Annotated[str, PlainValidator(_arm), matching(ARM_PATTERN)]
_Concurrency = Annotated[int, Ge(1), Le(MAX_CONCURRENCY)]
_Rate = Annotated[float, Gt(0), Le(MAX_RATE)]


class BenchmarkFields(Body):
    """What to measure; every field has a default."""

    adapters: Annotated[list[_BenchmarkAdapter], MinLen(1), MaxLen(MAX_LIST_LENGTH)] = Field(
        default_factory=list
    )
    arms: Annotated[list[_Arm], MinLen(1), MaxLen(MAX_LIST_LENGTH)] = Field(default_factory=list)
    concurrency: Annotated[list[_Concurrency], MinLen(1), MaxLen(MAX_LIST_LENGTH)] = Field(default=[4])
    rates: Annotated[list[_Rate], MinLen(1), MaxLen(MAX_LIST_LENGTH)] = Field(default=[2.0])
    requests: Annotated[int, _bounded("requests")] = 16
    output_tokens: Annotated[int, _bounded("output_tokens")] = 32
    prompt_tokens: Annotated[int, _bounded("prompt_tokens")] = 32
    repeats: Annotated[int, _bounded("repeats")] = 5
    seed: Annotated[int, _bounded("seed")] = 0
    max_seconds: Annotated[int, _bounded("max_seconds")] = 300
    """No pass starts that would end later than after this many seconds."""
    force: bool = False
    """Start and continue even if other requests need the server."""

    FAULTS: ClassVar[Faults] = {
        **_listed("adapters", "an adapter's name"),
        **_listed("arms", "an arm's name"),
        **_listed("concurrency", f"a whole number from 1 to {MAX_CONCURRENCY}"),
        **_listed("rates", f"a number above 0 and at most {MAX_RATE:g} (requests per second)"),
        **{
            (field, ANY): Fault(Code.OUT_OF_RANGE, f"{field} must be a whole number from {low} to {high}.")
            for field, (low, high) in BOUNDS.items()
        },
    }


class BenchmarkPlan(BenchmarkFields):
    """A bounded benchmark. Every adapter is registered, and every arm has enough adapters."""

    def to_json(self) -> dict[str, Any]:
        """The plan as a request body."""
        return self.model_dump()

    def arguments(self) -> list[str]:
        """Options for `python -m lora_compose.benchmarks.serving`.

        Without its timeline, because that registers adapters and fuses."""
        arguments = ["--timeline-seconds", "0"]
        for name, value in self.to_json().items():
            text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
            if name != "force" and text:
                arguments += [f"--{name.replace('_', '-')}", text]
        return arguments


def read_plan(
    body: dict[str, Any], registry: Registry, resolver: Resolver, max_model_len: int
) -> BenchmarkPlan:
    """Raises InvalidRequest with the field, NotFound for an adapter that is not registered, and
    Unservable("wrong_base")."""
    fields = BenchmarkPlan.read(body)
    served = [version.name for version in registry.newest(resolver.fingerprints)]
    adapters = fields.adapters or served[:DEFAULT_ADAPTERS]
    for name in fields.adapters:
        resolver.version(*parse_reference(name, "adapters"))
    _refuse_twice(fields.adapters, "adapters")
    _refuse_twice(fields.arms, "arms")
    arms = fields.arms or ["base", "single", "stack:2"][: 1 + len(adapters)]
    _require_adapters(arms, len(adapters))
    if fields.prompt_tokens + fields.output_tokens > max_model_len:
        raise InvalidRequest(
            Code.OUT_OF_RANGE,
            f"prompt_tokens plus output_tokens must be at most {max_model_len}, the model's max_model_len.",
            "output_tokens" if "output_tokens" in body else "prompt_tokens",
        )
    return fields.model_copy(update={"adapters": adapters, "arms": arms})


def _require_adapters(arms: Sequence[str], adapters: int) -> None:
    for arm in arms:
        needed = 0 if arm == "base" else int(arm.partition(":")[2] or 1)
        if needed > adapters:
            raise InvalidRequest(
                Code.TOO_FEW_ADAPTERS,
                f"The arm {arm} needs {needed} adapters, but the plan has {adapters}.",
                "arms",
            )


def _refuse_twice(values: Sequence[str], name: str) -> None:
    if len(set(values)) < len(values):
        raise InvalidRequest(Code.GIVEN_TWICE, f"The entries of {name} must be different.", name)
