"""Builds a merge: combines PEFT adapters into one PEFT adapter, and reports the error.

It runs on the CPU, one module at a time. All arguments but `on_progress` can be pickled, so it can run in
another process. The result depends on the contents and weights of the members and on the options. It does not
depend on the order of the members, their paths or the global RNG.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch import Generator, Tensor

from lora_compose.adapters.composition.composition import SPELLINGS, MethodOptions
from lora_compose.adapters.errors import AdapterRejected, Code, InvalidRequest
from lora_compose.adapters.merging.low_rank import LowRank, concat, from_dense, truncate
from lora_compose.adapters.merging.methods import METHODS, CombinationMethod
from lora_compose.adapters.merging.report import MergeReport, ModuleReport, measure
from lora_compose.adapters.peft.checkpoint import Lora, LoraModule, open_adapter, write_adapter
from lora_compose.adapters.peft.files import FILES


@dataclass(frozen=True)
class MergeInput:
    """A PEFT directory and its weight."""

    directory: Path
    weight: float


@dataclass(frozen=True)
class WeightedModule:
    """The factors that one member has for one module, and the weight of the member."""

    module: LoraModule
    weight: float
    digest: bytes

    def weighted(self) -> LowRank:
        """weight * scaling * B @ A, in float64."""
        return LowRank(
            B=self.module.lora_B.double() * (self.weight * self.module.scaling),
            A=self.module.lora_A.double(),
        )


def build(
    method: str,
    inputs: Sequence[MergeInput],
    options: MethodOptions,
    output: Path,
    base_model_name_or_path: str,
    on_progress: Callable[[int, int], None] | None = None,
) -> MergeReport:
    """Merge `inputs` into the empty directory `output`. `on_progress(done, total)` counts modules.

    Raises InvalidRequest for a wrong method, weight or option, and AdapterRejected if a member cannot be read
    or is not finite, or if the members do not have the same shapes.
    """
    started = perf_counter()
    row = _checked_method(method, inputs, options)
    members = [(open_adapter(member.directory), member.weight) for member in inputs]
    largest = max(lora.rank for lora, _ in members)
    names = sorted({name for lora, _ in members for name in lora.modules})
    modules: dict[str, LoraModule] = {}
    reports: dict[str, ModuleReport] = {}
    for done, name in enumerate(names, start=1):
        modules[name], reports[name] = _merge_module(name, _parts(name, members), row, options, largest)
        if on_progress is not None:
            on_progress(done, len(names))
    write_adapter(Lora(modules), output, base_model_name_or_path)
    size = sum((output / file).stat().st_size for file in FILES)
    return MergeReport.of(SPELLINGS.get(method, method), reports, size, perf_counter() - started)


def _checked_method(method: str, inputs: Sequence[MergeInput], options: MethodOptions) -> CombinationMethod:
    row = METHODS.get(SPELLINGS.get(method, method))
    if row is None:
        raise InvalidRequest(
            Code.UNKNOWN_METHOD,
            f"The method must be one of {', '.join(METHODS)}, not {method!r:.40}.",
            "method",
        )
    if not inputs:
        raise InvalidRequest(Code.INVALID_COMPOSITION, "There are no adapters to merge.", "adapters")
    largest = torch.finfo(torch.float32).max
    if not all(abs(member.weight) <= largest for member in inputs):  # refuses NaN as well
        raise InvalidRequest(Code.INVALID_WEIGHT, "Weights must be finite float32 numbers.", "weight")
    if row.needs_density and not (options.density is not None and 0 < options.density <= 1):
        message = f"The method {method} needs a density in (0, 1], not {options.density}."
        raise InvalidRequest(Code.INVALID_COMPOSITION, message, "density")
    if options.rank is not None and not (row.takes_rank and options.rank >= 1):
        reason = "A rank is at least 1." if row.takes_rank else "This method takes no rank."
        message = f"The method {method} cannot have rank {options.rank}. {reason}"
        raise InvalidRequest(Code.INVALID_COMPOSITION, message, "rank")
    return row


def _parts(name: str, members: Sequence[tuple[Lora, float]]) -> list[WeightedModule]:
    """The members that have the module, sorted by content and weight."""
    parts = [
        WeightedModule(module, weight, module.digest())
        for lora, weight in members
        if (module := lora.modules.get(name)) is not None
    ]
    if len({part.module.shape for part in parts}) > 1:
        shapes = sorted({part.module.shape for part in parts})
        raise AdapterRejected(
            Code.WRONG_BASE,
            f"The adapters have different shapes for {name}: {shapes}. They are for different bases.",
            "adapters",
        )
    return sorted(parts, key=lambda part: (part.digest, part.weight))


def _merge_module(
    name: str, parts: Sequence[WeightedModule], row: CombinationMethod, options: MethodOptions, largest: int
) -> tuple[LoraModule, ModuleReport]:
    members = [part.weighted() for part in parts]
    for member in members:
        _check_finite(name, member.B, member.A)
    stack = _stack(parts)
    rank = options.rank or (largest if row.default_rank == "largest" else stack.rank)
    rank = min(rank, *parts[0].module.shape)
    if row.elementwise:
        dense = _dense(name, parts, row, options)
        result = from_dense(_check_finite(name, dense), rank)
    else:
        result = stack if stack.rank <= rank else truncate(stack, rank)
    module = _stored(name, result, parts[0].module.embedding)
    written = LowRank(B=module.lora_B.double(), A=module.lora_A.double())
    return module, measure(written, members, stack)


def _stack(parts: Sequence[WeightedModule]) -> LowRank:
    """The exact weighted sum.

    Weights of members with equal content are added first, so weights 1 and -1 of one content give zero."""
    weights: dict[bytes, list[float]] = {}
    for part in parts:
        weights.setdefault(part.digest, []).append(part.weight)
    content = {part.digest: part.module for part in parts}
    summed = [WeightedModule(content[digest], math.fsum(w), digest) for digest, w in weights.items()]
    first = parts[0].weighted()
    counted = [part.weighted() for part in summed if part.weight != 0]
    return concat(counted) if counted else LowRank(B=first.B[:, :0], A=first.A[:0])


def _dense(
    name: str, parts: Sequence[WeightedModule], row: CombinationMethod, options: MethodOptions
) -> Tensor:
    assert row.sparsify is not None
    assert row.consensus is not None
    assert options.density is not None
    deltas = []
    for part in parts:
        delta = part.module.delta()
        if options.density < 1:
            delta = row.sparsify(delta, options.density, _generator(options.seed, part.digest, name))
        deltas.append(delta)
    return row.consensus(deltas, [part.weight for part in parts], options.majority_sign_method)


def _generator(seed: int, digest: bytes, name: str) -> Generator:
    """A generator seeded from the member's content and the module, so that order does not matter."""
    key = hashlib.sha256(b"%d|%b|%b" % (seed, digest, name.encode())).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))


def _stored(name: str, result: LowRank, embedding: bool) -> LoraModule:
    """`result` in float32. A zero matrix has rank 1, because PEFT has no rank 0 and requires a tensor."""
    lora_A, lora_B = result.A.float(), result.B.float()
    if not (lora_A.any() and lora_B.any()):
        lora_A, lora_B = torch.zeros(1, lora_A.shape[1]), torch.zeros(lora_B.shape[0], 1)
    bound = (result.A.norm() * result.B.norm()).float()  # no entry of the delta is larger
    _check_finite(name, lora_A, lora_B, bound)
    return LoraModule(lora_A=lora_A, lora_B=lora_B, scaling=1.0, embedding=embedding)


def _check_finite(name: str, *tensors: Tensor) -> Tensor:
    """Return the first tensor. Raises AdapterRejected unless all tensors are finite."""
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        message = f"The merge of {name} has values that are not finite in float32."
        raise AdapterRejected(Code.NON_FINITE_WEIGHTS, message, "adapters")
    return tensors[0]
