"""Build a merge: PEFT adapters, weights and a method in; one PEFT adapter and a report of its error out.

Runs on the CPU, module by module, in any process: every argument but `progress` can be pickled. The result
depends on the members' contents, weights and the options, never on their order, their paths or the global
RNG.
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
from lora_compose.adapters.merging import low_rank as thin
from lora_compose.adapters.merging.low_rank import LowRank
from lora_compose.adapters.merging.methods import METHODS, CombinationMethod
from lora_compose.adapters.merging.report import MergeReport, ModuleReport, measure
from lora_compose.adapters.peft.checkpoint import Lora, LoraModule, open_adapter, write_adapter
from lora_compose.adapters.peft.files import FILES


@dataclass(frozen=True)
class Ingredient:
    """A PEFT directory and how strongly it counts."""

    directory: Path
    weight: float


@dataclass(frozen=True)
class WeightedModule:
    """One member's share of one module."""

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
    ingredients: Sequence[Ingredient],
    options: MethodOptions,
    output: Path,
    base_model_name_or_path: str,
    progress: Callable[[int, int], None] | None = None,
) -> MergeReport:
    """Merge `ingredients` into the empty directory `output`; `progress(done, total)` counts modules.

    InvalidRequest for a method, weight or option that is not one; AdapterRejected for members that cannot be
    read, do not fit each other, or are not finite.
    """
    started = perf_counter()
    row = _checked_row(method, ingredients, options)
    members = [(open_adapter(ingredient.directory), ingredient.weight) for ingredient in ingredients]
    largest = max(lora.rank for lora, _ in members)
    names = sorted({name for lora, _ in members for name in lora.modules})
    modules: dict[str, LoraModule] = {}
    reports: dict[str, ModuleReport] = {}
    for done, name in enumerate(names, start=1):
        modules[name], reports[name] = _merge_module(name, _parts(name, members), row, options, largest)
        if progress is not None:
            progress(done, len(names))
    write_adapter(Lora(modules), output, base_model_name_or_path)
    size = sum((output / file).stat().st_size for file in FILES)
    return MergeReport.of(SPELLINGS.get(method, method), reports, size, perf_counter() - started)


def _checked_row(method: str, ingredients: Sequence[Ingredient], options: MethodOptions) -> CombinationMethod:
    row = METHODS.get(SPELLINGS.get(method, method))
    if row is None:
        raise InvalidRequest(Code.UNKNOWN_METHOD, f"{method!r:.40} is none of {', '.join(METHODS)}", "method")
    if not ingredients:
        raise InvalidRequest(Code.INVALID_COMPOSITION, "nothing to merge", "adapters")
    largest = torch.finfo(torch.float32).max
    if not all(abs(ingredient.weight) <= largest for ingredient in ingredients):  # refuses NaN as well
        raise InvalidRequest(Code.INVALID_WEIGHT, "weights must be finite float32 numbers", "weight")
    if row.needs_density and not (options.density is not None and 0 < options.density <= 1):
        message = f"{method} needs a density in (0, 1], not {options.density}"
        raise InvalidRequest(Code.INVALID_COMPOSITION, message, "density")
    if options.rank is not None and not (row.takes_rank and options.rank >= 1):
        message = (
            f"{method} cannot have rank {options.rank}: a rank is at least 1, and a stack has none of its own"
        )
        raise InvalidRequest(Code.INVALID_COMPOSITION, message, "rank")
    return row


def _parts(name: str, members: Sequence[tuple[Lora, float]]) -> list[WeightedModule]:
    """The members that have the module, in an order that their contents and weights decide."""
    parts = [
        WeightedModule(module, weight, module.digest())
        for lora, weight in members
        if (module := lora.modules.get(name)) is not None
    ]
    if len({part.module.shape for part in parts}) > 1:
        shapes = sorted({part.module.shape for part in parts})
        raise AdapterRejected(
            Code.WRONG_BASE, f"the members disagree on the shape of {name}: {shapes}", "adapters"
        )
    return sorted(parts, key=lambda part: (part.digest, part.weight))


def _merge_module(
    name: str, parts: Sequence[WeightedModule], row: CombinationMethod, options: MethodOptions, largest: int
) -> tuple[LoraModule, ModuleReport]:
    members = [part.weighted() for part in parts]
    for member in members:
        _finite(name, member.B, member.A)
    stack = _stack(parts)
    rank = options.rank or (largest if row.default_rank == "largest" else stack.rank)
    rank = min(rank, *parts[0].module.shape)
    if row.elementwise:
        dense = _dense(name, parts, row, options)
        result = thin.of_dense(_finite(name, dense), rank)
    else:
        result = stack if stack.rank <= rank else thin.truncate(stack, rank)
    module = _stored(name, result)
    written = LowRank(B=module.lora_B.double(), A=module.lora_A.double())
    return module, measure(written, members, stack)


def _stack(parts: Sequence[WeightedModule]) -> LowRank:
    """The exact sum. Weights of members with equal content add up first: [1, -1] of the same is zero."""
    weights: dict[bytes, list[float]] = {}
    for part in parts:
        weights.setdefault(part.digest, []).append(part.weight)
    content = {part.digest: part.module for part in parts}
    summed = [WeightedModule(content[digest], math.fsum(each), digest) for digest, each in weights.items()]
    nothing = parts[0].weighted()
    counted = [part.weighted() for part in summed if part.weight != 0]
    return thin.concat(counted) if counted else LowRank(B=nothing.B[:, :0], A=nothing.A[:0])


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
    """Randomness that belongs to the member's content and the module, so that order does not matter."""
    drawn = hashlib.sha256(b"%d|%b|%b" % (seed, digest, name.encode())).digest()
    return torch.Generator().manual_seed(int.from_bytes(drawn[:7], "big"))


def _stored(name: str, result: LowRank) -> LoraModule:
    """Rounded once to float32. A zero is kept at rank 1: PEFT has no rank 0 and wants a tensor."""
    lora_A, lora_B = result.A.float(), result.B.float()
    if not (lora_A.any() and lora_B.any()):
        lora_A, lora_B = torch.zeros(1, lora_A.shape[1]), torch.zeros(lora_B.shape[0], 1)
    _finite(name, lora_A, lora_B, (result.A.norm() * result.B.norm()).float())  # the last bounds every entry
    return LoraModule(lora_A=lora_A, lora_B=lora_B, scaling=1.0)


def _finite(name: str, *tensors: Tensor) -> Tensor:
    """The first of the tensors, all of them being finite."""
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        message = f"the merge of {name} has values that are not finite in float32"
        raise AdapterRejected(Code.NON_FINITE_WEIGHTS, message, "adapters")
    return tensors[0]
