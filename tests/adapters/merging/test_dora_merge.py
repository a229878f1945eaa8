"""The laws of merges with DoRA and lora_bias, on true deltas that torch computes in float64."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_compose.adapters.composition.composition import MethodOptions
from lora_compose.adapters.errors import AdapterRejected
from lora_compose.adapters.merging.merge import MergeBase, MergeInput, build
from lora_compose.adapters.merging.methods import METHODS
from lora_compose.adapters.merging.report import MergeReport
from tests.adapters.written_adapters import SHAPES, write_peft

Deltas = dict[str, torch.Tensor]


class Bench:
    """A base, two DoRA adapters, a plain one and one with biases, and a directory for merges."""

    def __init__(self, root: Path) -> None:
        self.root, self.base = root, root / "base"
        self.base.mkdir()
        draw = torch.Generator().manual_seed(5)
        self.weights = {name: torch.randn(shape, generator=draw) for name, shape in SHAPES.items()}
        save_file({f"{n}.weight": w for n, w in self.weights.items()}, self.base / "model.safetensors")
        write_peft(root / "plain", seed=3, rank=4, alpha=1)
        for seed, name in enumerate(("dora", "other")):
            write_peft(root / name, seed=seed, rank=2, alpha=1, use_dora=True)
            norms = {n: torch.linalg.norm(self.changed(name, n), dim=1) for n in SHAPES}
            drift = {n: 1 + 0.2 * torch.randn(len(v), generator=draw) for n, v in norms.items()}
            self.add(name, "lora_magnitude_vector", {n: v.float() * drift[n] for n, v in norms.items()})
        write_peft(root / "bias", seed=4, rank=2, alpha=1, lora_bias=True)
        self.add("bias", "lora_B.bias", {n: torch.randn(s[0], generator=draw) for n, s in SHAPES.items()})
        self.report: MergeReport | None = None

    def tensors(self, adapter: str) -> Deltas:
        return load_file(self.root / adapter / "adapter_model.safetensors")

    def add(self, adapter: str, part: str, vectors: Deltas) -> None:
        more = {f"base_model.model.{name}.{part}": vector for name, vector in vectors.items()}
        save_file(self.tensors(adapter) | more, self.root / adapter / "adapter_model.safetensors")

    def changed(self, adapter: str, module: str) -> torch.Tensor:
        """W + c B A, float64."""
        found = self.tensors(adapter)
        config = json.loads((self.root / adapter / "adapter_config.json").read_text())
        key = f"base_model.model.{module}.lora"
        scaling = float(config["lora_alpha"]) / float(config["r"])
        product = found[f"{key}_B.weight"].double() @ found[f"{key}_A.weight"].double()
        return self.weights[module].double() + scaling * product

    def deltas(self, adapter: str) -> Deltas:
        """W' - W of each module, by PEFT's formula."""
        result, found = {}, self.tensors(adapter)
        for name, weight in self.weights.items():
            changed = self.changed(adapter, name)
            magnitude = found.get(f"base_model.model.{name}.lora_magnitude_vector")
            if magnitude is not None:
                changed = magnitude.double()[:, None] * changed / changed.norm(dim=1, keepdim=True)
            result[name] = changed - weight.double()
        return result

    def merge(self, method: str, *terms: tuple[str, float], **options: object) -> Deltas:
        inputs = [MergeInput(self.root / name, weight) for name, weight in terms]
        output = f"merge{len(list(self.root.iterdir()))}"
        base = MergeBase("base", self.base)
        self.report = build(method, inputs, MethodOptions(**options), self.root / output, base)  # type: ignore[arg-type]
        self.output = output
        return self.deltas(output)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def total(bench: Bench, *terms: tuple[str, float]) -> Deltas:
    found = [(bench.deltas(name), weight) for name, weight in terms]
    return {name: sum((w * d[name] for d, w in found), torch.zeros(())) for name in SHAPES}


def off(left: Deltas, right: Deltas) -> float:
    error = torch.stack([(left[name] - right[name]).norm() for name in SHAPES]).norm()
    return float(error / max(torch.stack([right[name].norm() for name in SHAPES]).norm(), torch.tensor(1.0)))


@pytest.mark.parametrize("method", METHODS)
def test_one_adapter_at_weight_one_is_itself(bench: Bench, method: str) -> None:
    options = {"density": 1.0} if METHODS[method].needs_density else {}
    assert off(bench.merge(method, ("dora", 1.0), **options), bench.deltas("dora")) < 2e-6
    assert bench.report is not None
    assert bench.report.relative_error is not None
    assert bench.report.relative_error < 2e-6


TERMS = [("dora", 0.6), ("other", -0.3), ("plain", 1.2)]


@pytest.mark.parametrize("method", ["stack", "linear"])
def test_the_sum_is_exact_and_ordinary_peft_dora(bench: Bench, method: str) -> None:
    assert off(bench.merge(method, *TERMS), total(bench, *TERMS)) < 2e-6
    config = json.loads((bench.root / bench.output / "adapter_config.json").read_text())
    assert config["use_dora"] is True
    assert "lora_bias" not in config


def test_svd_at_full_rank_is_the_stack_and_below_reports_its_error(bench: Bench) -> None:
    exact = total(bench, *TERMS)
    assert off(bench.merge("svd", *TERMS, rank=9), exact) < 2e-6
    got = bench.merge("svd", *TERMS, rank=2)
    assert bench.report is not None
    assert bench.report.relative_error == pytest.approx(off(got, exact), rel=1e-4)
    assert off(got, exact) > 0.05


def test_minus_one_negates_and_an_adapter_minus_itself_is_nothing(bench: Bench) -> None:
    negated = {name: -delta for name, delta in bench.deltas("dora").items()}
    assert off(bench.merge("linear", ("dora", -1.0)), negated) < 2e-6
    nothing = bench.merge("linear", ("dora", 1.0), ("dora", -1.0))
    assert max(float(delta.abs().max()) for delta in nothing.values()) < 1e-6


def test_order_does_not_matter(bench: Bench) -> None:
    bytes_of = []
    for terms in (TERMS, TERMS[::-1]):
        bench.merge("ties", *terms, density=0.5, rank=4)
        bytes_of.append((bench.root / bench.output / "adapter_model.safetensors").read_bytes())
    assert bytes_of[0] == bytes_of[1]


def test_an_elementwise_merge_reports_what_it_loses(bench: Bench) -> None:
    got = bench.merge("dare_linear", *TERMS, density=0.7, rank=4, seed=1)
    assert bench.report is not None
    assert bench.report.relative_error == pytest.approx(off(got, total(bench, *TERMS)), rel=1e-4)
    row = next(iter(bench.report.modules.values()))
    assert 0 < row.sign_conflict < 1


def test_biases_are_added_with_their_weights(bench: Bench) -> None:
    got = bench.merge("svd", ("bias", 0.5), ("plain", 1.0), rank=9)
    assert off(got, total(bench, ("bias", 0.5), ("plain", 1.0))) < 2e-6
    merged, before = bench.tensors(bench.output), bench.tensors("bias")
    for name in SHAPES:
        key = f"base_model.model.{name}.lora_B.bias"
        torch.testing.assert_close(merged[key], 0.5 * 0.5 * before[key])


def refusal(bench: Bench, *terms: tuple[str, float], base: Path | None) -> AdapterRejected:
    inputs = [MergeInput(bench.root / name, weight) for name, weight in terms]
    with pytest.raises(AdapterRejected) as refused:
        build("linear", inputs, MethodOptions(), bench.root / "out", MergeBase("base", base))
    return refused.value


def test_what_peft_cannot_express_is_refused_with_what_to_use(bench: Bench) -> None:
    both = refusal(bench, ("dora", 1.0), ("bias", 1.0), base=bench.base)
    assert "lora_bias" in both.message
    assert "stack" in both.message
    assert "weights of the base" in refusal(bench, ("dora", 1.0), base=None).message
    doubled = {name: 2 * torch.linalg.norm(bench.changed("dora", name), dim=1).float() for name in SHAPES}
    bench.add("dora", "lora_magnitude_vector", doubled)
    assert "without the base" in refusal(bench, ("dora", -1.0), base=bench.base).message
