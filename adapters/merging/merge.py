"""Builds a merge: combines PEFT adapters into one PEFT adapter, and reports the error.

It runs on the CPU, one module at a time. All arguments but `on_progress` can be pickled, so it can run in
another process. The result depends on the contents and weights of the members and on the options. It does not
depend on the order of the members, their paths or the global RNG.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from time import perf_counter
from typing import Literal

import torch
from torch import Generator, Tensor

from lora_compose.adapters.composition.composition import SPELLINGS, MethodOptions
from lora_compose.adapters.errors import AdapterRejected, Code, InvalidRequest
from lora_compose.adapters.merging.change import Change, weighted_sum
from lora_compose.adapters.merging.low_rank import LowRank, concat, from_dense, truncate
from lora_compose.adapters.merging.methods import METHODS, CombinationMethod
from lora_compose.adapters.merging.report import MergeReport, ModuleReport, measure
from lora_compose.adapters.peft.base_weights import BaseWeights
from lora_compose.adapters.peft.checkpoint import Lora, LoraModule, open_adapter, write_adapter
from lora_compose.adapters.peft.dora import LayerChange, dora_module, layer_change, row_norms, row_scale
from lora_compose.adapters.peft.files import FILES

THREADS = 2
"""Modules at a time. torch computes without the interpreter lock."""


@dataclass(frozen=True)
class MergeInput:
    """A PEFT directory and its weight."""

    directory: Path
    weight: float


@dataclass(frozen=True)
class MergeBase:
    """The base of the members of a merge."""

    name: str
    """`base_model_name_or_path` of the result."""
    directory: Path | None = None
    """The checkpoint. Only DoRA needs it."""


@dataclass(frozen=True)
class WeightedModule:
    """The change that one member makes to one module, and the weight of the member."""

    change: LayerChange
    """In float64."""
    weight: float
    digest: bytes

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)"""
        return self.change.lora_B.shape[0], self.change.lora_A.shape[1]

    def weighted(self) -> Change:
        """weight * the change, in float64."""
        factors = LowRank(B=self.change.lora_B * self.weight, A=self.change.lora_A)
        return Change(factors, weighted_sum([self.change.row_change], [self.weight]))

    def delta(self, base: Tensor | None) -> Tensor:
        """The dense true delta at weight 1, (d_out, d_in) in float32. `base` is the weight of the base."""
        delta = self.change.lora_B.float() @ self.change.lora_A.float()
        if self.change.row_change is not None:
            assert base is not None
            delta += self.change.row_change.float()[:, None] * base
        return delta


@dataclass(frozen=True)
class Members:
    """The adapters of a merge with their weights, and the base's weights if one of them has DoRA."""

    loras: Sequence[tuple[Lora, float]]
    base: BaseWeights | None

    @classmethod
    def read(cls, inputs: Sequence[MergeInput], base_directory: Path | None) -> "Members":
        """Raises AdapterRejected if they cannot be read or combined."""
        loras = [(open_adapter(member.directory), member.weight) for member in inputs]
        if not any(lora.has_dora for lora, _ in loras):
            return cls(loras, None)
        if any(lora.has_bias for lora, _ in loras):
            message = (
                "One adapter has DoRA and another has lora_bias, and PEFT has no adapter with both. "
                "A request to a server can stack them, which is exact."
            )
        elif base_directory is None:
            message = (
                "A merge of a DoRA adapter needs the weights of the base. Name their directory with "
                "--base DIR."
            )
        else:
            return cls(loras, BaseWeights(base_directory))
        raise AdapterRejected(Code.UNSUPPORTED_FEATURE, message, "adapters")

    @property
    def names(self) -> list[str]:
        """The modules of all members, sorted."""
        return sorted({name for lora, _ in self.loras for name in lora.modules})

    @cached_property
    def largest_rank(self) -> int:
        """The largest rank of a member."""
        return max(lora.rank for lora, _ in self.loras)


def build(
    method: str,
    inputs: Sequence[MergeInput],
    options: MethodOptions,
    output: Path,
    base: MergeBase,
    on_progress: Callable[[int, int], None] | None = None,
) -> MergeReport:
    """Merge `inputs` into the empty directory `output`. `on_progress(done, total)` counts modules.

    A merge with a DoRA adapter is a DoRA adapter.
    Raises InvalidRequest for a wrong method, weight or option, and AdapterRejected if a member cannot be read
    or is not finite, or if the members cannot be combined.
    """
    started = perf_counter()
    row = _checked_method(method, inputs, options)
    members = Members.read(inputs, base.directory)
    names = members.names
    modules: dict[str, LoraModule] = {}
    reports: dict[str, ModuleReport] = {}
    pool = ThreadPoolExecutor(THREADS)
    try:
        merged = pool.map(lambda name: _merge_module(name, members, row, options), names)
        for done, (name, (module, report)) in enumerate(zip(names, merged, strict=True), start=1):
            modules[name], reports[name] = module, report
            if on_progress is not None:
                on_progress(done, len(names))
    finally:
        pool.shutdown(cancel_futures=True)
    write_adapter(Lora(modules), output, base.name)
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


def _parts(name: str, members: Members, base: Tensor | None) -> list[WeightedModule]:
    """The members that have the module, sorted by content and weight."""
    found = [(lora.modules[name], weight) for lora, weight in members.loras if name in lora.modules]
    if len({module.shape for module, _ in found}) > 1:
        shapes = sorted({module.shape for module, _ in found})
        raise AdapterRejected(
            Code.WRONG_BASE,
            f"The adapters have different shapes for {name}: {shapes}. They are for different bases.",
            "adapters",
        )
    parts = [WeightedModule(_change(name, module, base), weight, module.digest()) for module, weight in found]
    return sorted(parts, key=lambda part: (part.digest, part.weight))


def _change(name: str, module: LoraModule, base: Tensor | None) -> LayerChange:
    if module.magnitude is None or base is None:
        return layer_change(module, None, torch.float64)
    norms = row_norms(module, [(slice(0, len(base)), base)])
    return layer_change(module, row_scale(name, module, norms), torch.float64)


def _merge_module(
    name: str, members: Members, row: CombinationMethod, options: MethodOptions
) -> tuple[LoraModule, ModuleReport]:
    first = next(lora.modules[name] for lora, _ in members.loras if name in lora.modules)
    shape = first.shape
    base = None if members.base is None else members.base.weight(name, shape)
    parts = _parts(name, members, base)
    weighted = [part.weighted() for part in parts]
    for member in weighted:
        _check_finite(name, *member.factors, *(v for v in (member.row_change,) if v is not None))
    summed = _summed(parts)
    factors = [part.weighted().factors for part in summed]
    empty = LowRank(B=weighted[0].factors.B[:, :0], A=weighted[0].factors.A[:0])
    stack = Change(concat(factors) if factors else empty, _vector("row_change", summed))
    rank = options.rank or (members.largest_rank if row.default_rank == "largest" else stack.factors.rank)
    rank = min(rank, *shape)
    if row.elementwise:
        result, row_change, bias = _elementwise(name, parts, row, options, rank, base)
    else:
        result = stack.factors if stack.factors.rank <= rank else truncate(stack.factors, rank)
        row_change, bias = stack.row_change, _vector("bias", summed)
    module = _stored(name, result, row_change, bias, base)
    written = _change(name, module, base)
    change = Change(LowRank(B=written.lora_B, A=written.lora_A), written.row_change)
    return replace(module, embedding=first.embedding), measure(change, weighted, stack, base)


def _summed(parts: Sequence[WeightedModule]) -> list[WeightedModule]:
    """Members of equal content as one, without weights of 0: weights 1 and -1 of one content give zero."""
    weights: dict[bytes, list[float]] = {}
    for part in parts:
        weights.setdefault(part.digest, []).append(part.weight)
    content = {part.digest: part.change for part in parts}
    summed = [WeightedModule(content[digest], math.fsum(w), digest) for digest, w in weights.items()]
    return [part for part in summed if part.weight != 0]


def _vector(name: Literal["row_change", "bias"], parts: Sequence[WeightedModule]) -> Tensor | None:
    """The weighted sum of a vector of the members."""
    return weighted_sum([getattr(part.change, name) for part in parts], [part.weight for part in parts])


def _elementwise(
    name: str,
    parts: Sequence[WeightedModule],
    row: CombinationMethod,
    options: MethodOptions,
    rank: int,
    base: Tensor | None,
) -> tuple[LowRank, Tensor | None, Tensor | None]:
    """The factors, change of rows and bias of an elementwise method.

    The method is applied to the dense true deltas. Vectors are combined without sparsifying them, and kept
    exactly; the factors approximate the rest. So one adapter at density 1 is unchanged."""
    assert row.sparsify is not None
    assert row.consensus is not None
    assert options.density is not None
    deltas = []
    for part in parts:
        delta = part.delta(base)
        if options.density < 1:
            delta = row.sparsify(delta, options.density, _generator(options.seed, part.digest, name))
        deltas.append(delta)
    weights = [part.weight for part in parts]
    dense = row.consensus(deltas, weights, options.majority_sign_method)
    vectors: list[Tensor | None] = []
    for kind in ("row_change", "bias"):
        found = [getattr(part.change, kind) for part in parts]
        zero = torch.zeros(dense.shape[0], dtype=torch.float64)
        filled = [zero if vector is None else vector for vector in found]
        used = any(vector is not None for vector in found)
        vectors.append(row.consensus(filled, weights, options.majority_sign_method) if used else None)
    row_change, bias = vectors
    if row_change is not None and base is not None:
        dense = dense - row_change.float()[:, None] * base
    near = [LowRank(B=part.change.lora_B, A=part.change.lora_A) for part in parts]
    return from_dense(_check_finite(name, dense), rank, near), row_change, bias


def _generator(seed: int, digest: bytes, name: str) -> Generator:
    """A generator seeded from the member's content and the module, so that order does not matter."""
    key = hashlib.sha256(b"%d|%b|%b" % (seed, digest, name.encode())).digest()
    return torch.Generator().manual_seed(int.from_bytes(key[:7], "big"))


def _stored(
    name: str, result: LowRank, row_change: Tensor | None, bias: Tensor | None, base: Tensor | None
) -> LoraModule:
    """The module in float32; with DoRA if there is a `base`.

    A zero matrix has rank 1, because PEFT has no rank 0 and requires a tensor."""
    factors = result
    if not (result.A.float().any() and result.B.float().any()):
        factors = LowRank(B=result.B.new_zeros(len(result.B), 1), A=result.A.new_zeros(1, result.A.shape[1]))
    bound = (factors.A.norm() * factors.B.norm()).float()  # no entry of the delta is larger
    vectors = [vector.float() for vector in (row_change, bias) if vector is not None]
    _check_finite(name, factors.A.float(), factors.B.float(), bound, *vectors)
    if base is not None:
        return dora_module(name, LayerChange(factors.A, factors.B, row_change, None), base)
    return LoraModule(factors.A.float(), factors.B.float(), 1.0, bias if bias is None else bias.float())


def _check_finite(name: str, *tensors: Tensor) -> Tensor:
    """Return the first tensor. Raises AdapterRejected unless all tensors are finite."""
    # A sum is finite only if all values are. `isfinite` takes thirty times as long, so it only confirms.
    if not all(bool(tensor.sum().isfinite()) or bool(tensor.isfinite().all()) for tensor in tensors):
        message = f"The merge of {name} has values that are not finite in float32."
        raise AdapterRejected(Code.NON_FINITE_WEIGHTS, message, "adapters")
    return tensors[0]
