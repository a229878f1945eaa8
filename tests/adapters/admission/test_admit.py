import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from lora_compose.adapters.admission.admit import Admission, AdmissionLimits, admit
from lora_compose.adapters.admission.base_model import BaseShapes
from lora_compose.adapters.errors import AdapterRejected
from lora_compose.adapters.peft.checkpoint import open_adapter
from tests.adapters.adapter_files import INNER, WIDTH, factors, key, write_adapter, write_base

LIMITS = AdmissionLimits(max_lora_rank=16, dtype=torch.float32)
Q_A, Q_B = key(0, "self_attn.q_proj", "A"), key(0, "self_attn.q_proj", "B")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> BaseShapes:
    return BaseShapes.of(write_base(tmp_path_factory.mktemp("base")), "tiny")


def refused(directory: Path, base: BaseShapes, limits: AdmissionLimits = LIMITS) -> AdapterRejected:
    with pytest.raises(AdapterRejected) as caught:
        admit(directory, base, limits)
    assert str(directory) not in caught.value.message
    return caught.value


def test_an_adapter_that_peft_saved_is_admitted(tmp_path: Path) -> None:
    model = LlamaForCausalLM(LlamaConfig.from_pretrained(write_base(tmp_path / "base")))
    config = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "up_proj"], init_lora_weights=False)
    config.rank_pattern, config.use_rslora = {"1.mlp.up_proj": 8}, True
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    admission = admit(tmp_path / "adapter", BaseShapes.of(tmp_path / "base", "base"), LIMITS)
    assert admission.rank == 8
    assert admission.parameters == 2 * 4 * (WIDTH + WIDTH) + (4 + 8) * (WIDTH + INNER)
    assert admission.warnings == ()


def test_the_coverage_says_which_layers_and_modules_are_there(tmp_path: Path, base: BaseShapes) -> None:
    coverage = admit(write_adapter(tmp_path, factors(range(1))), base, LIMITS).coverage
    assert json.loads(json.dumps(coverage)) == {
        "layers": 1, "layers_total": 2, "modules": ["down_proj", "q_proj"], "linears": 2, "linears_total": 14,
    }  # fmt: skip


def test_the_peak_is_the_largest_product_of_norms(tmp_path: Path, base: BaseShapes) -> None:
    tensors = factors()
    admission = admit(write_adapter(tmp_path, tensors, use_rslora=True), base, LIMITS)
    products = [
        8 / math.sqrt(4) * tensors[name].double().norm() * tensors[name.replace("_A.", "_B.")].double().norm()
        for name in tensors
        if "lora_A" in name
    ]
    assert admission.peak == pytest.approx(max(float(product) for product in products), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_no_delta_is_larger_than_the_peak(tmp_path: Path, base: BaseShapes, dtype: torch.dtype) -> None:
    tensors = {name: tensor.to(dtype) for name, tensor in factors().items()}
    peak = admit(write_adapter(tmp_path, tensors), base, replace(LIMITS, dtype=dtype)).peak
    delta = 8 / 4 * tensors[Q_B].double() @ tensors[Q_A].double()
    assert float(torch.linalg.matrix_norm(delta, 2)) <= peak * 1.01


def wider(tensors: dict[str, torch.Tensor], name: str, shape: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return tensors | {name: torch.ones(shape)}


@pytest.mark.parametrize(
    ("tensors", "got", "want"),
    [
        (factors(width=WIDTH // 2), "[16, 4]", "[32, 4]"),
        (factors(width=WIDTH * 2), "[64, 4]", "[32, 4]"),
        (wider(factors(), Q_B, (WIDTH * 2, 4)), "[64, 4]", "[32, 4]"),
        (wider(factors(), Q_A, (4 * WIDTH,)), "[128]", "[4, 32]"),
        (wider(factors(), Q_A, (4, WIDTH, 1)), "[4, 32, 1]", "[4, 32]"),
        (wider(factors(), Q_A, ()), "[]", "[4, 32]"),
    ],
)
def test_an_adapter_of_another_base_is_refused_by_tensor_and_shape(
    tmp_path: Path, base: BaseShapes, tensors: dict[str, torch.Tensor], got: str, want: str
) -> None:
    refusal = refused(write_adapter(tmp_path, tensors), base)
    assert refusal.code == "wrong_base"
    assert all(word in refusal.message for word in (str(refusal.param), got, want, "tiny"))


@pytest.mark.parametrize(("r", "rank"), [(8, 4), (4, 8)])
def test_a_rank_that_the_tensors_do_not_have_is_refused(
    tmp_path: Path, base: BaseShapes, r: int, rank: int
) -> None:
    refusal = refused(write_adapter(tmp_path, factors(rank=rank), r=r), base)
    assert refusal.code == "rank_mismatch"
    assert f"rank {rank}" in refusal.message
    assert f"says {r}" in refusal.message


def test_one_factor_of_another_rank_is_refused(tmp_path: Path, base: BaseShapes) -> None:
    assert refused(write_adapter(tmp_path, wider(factors(), Q_B, (WIDTH, 3))), base).code == "rank_mismatch"
    assert refused(write_adapter(tmp_path, rank_pattern={"q_proj": 2}), base).code == "rank_mismatch"


@pytest.mark.parametrize("config", [{"r": 17}, {"rank_pattern": {"nowhere": 17}}])
def test_a_rank_above_the_servers_is_refused_with_both(
    tmp_path: Path, base: BaseShapes, config: dict[str, Any]
) -> None:
    refusal = refused(write_adapter(tmp_path, **config), base)
    assert refusal.code == "rank_too_large"
    assert "17" in refusal.message
    assert "16" in refusal.message


@pytest.mark.parametrize(
    ("name", "code"),
    [
        (key(99, "self_attn.q_proj", "A"), "unknown_layer"),
        (key(2, "self_attn.q_proj", "A"), "unknown_layer"),
        (key(0, "self_attn.c_proj", "A"), "unknown_module"),
        (key(0, "self_attn", "A"), "unknown_module"),
        ("hello", "unknown_module"),
        (Q_A.replace("lora_A", "lora_A.default.default"), "unknown_module"),
        (Q_A.replace("lora_A.weight", "bias"), "unsupported_feature"),
        (Q_A.replace("lora_A", "lora_C"), "unknown_module"),
        (Q_A.removeprefix("base_model."), "unknown_module"),
        ("base_model.model.lm_head.lora_A.weight", "corrupt_weights"),
        ("base_model.model.model.embed_tokens.lora_A.weight", "unknown_module"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "corrupt_weights"),
        (Q_A.replace("lora_A.weight", "lora_magnitude_vector"), "bad_adapter_config"),
        (Q_B.replace("weight", "bias"), "bad_adapter_config"),
        ("base_model.model.lm_head.modules_to_save.weight", "unsupported_feature"),
    ],
)
def test_a_tensor_for_nothing_served_is_refused_by_name(
    tmp_path: Path, base: BaseShapes, name: str, code: str
) -> None:
    refusal = refused(write_adapter(tmp_path, factors() | {name: torch.ones(4, WIDTH)}), base)
    assert (refusal.code, refusal.param) == (code, name)
    assert name in refusal.message


@pytest.mark.parametrize("gone", [Q_A, Q_B])
def test_half_a_pair_is_refused(tmp_path: Path, base: BaseShapes, gone: str) -> None:
    refusal = refused(write_adapter(tmp_path, {n: t for n, t in factors().items() if n != gone}), base)
    assert refusal.code == "corrupt_weights"
    assert refusal.param == (Q_B if gone == Q_A else Q_A)


def test_a_file_without_tensors_is_refused(tmp_path: Path, base: BaseShapes) -> None:
    assert refused(write_adapter(tmp_path, {}), base).code == "corrupt_weights"


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.bool])
def test_a_dtype_no_adapter_is_served_in_is_refused(
    tmp_path: Path, base: BaseShapes, dtype: torch.dtype
) -> None:
    tensors = factors() | {Q_A: torch.zeros(4, WIDTH).to(dtype)}
    refusal = refused(write_adapter(tmp_path, tensors), base)
    assert (refusal.code, refusal.param) == ("unsupported_feature", Q_A)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", [Q_A, key(1, "mlp.down_proj", "B")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_value_that_is_not_finite_is_refused(
    tmp_path: Path, base: BaseShapes, bad: float, name: str, dtype: torch.dtype
) -> None:
    tensors = {n: t.to(dtype) for n, t in factors().items()}
    tensors[name][1, 2] = bad
    refusal = refused(write_adapter(tmp_path, tensors), base)
    assert (refusal.code, refusal.param) == ("non_finite_weights", name)


@pytest.mark.parametrize(
    ("dtype", "value", "alpha"),
    [
        (torch.bfloat16, 3.4e38, 8),
        (torch.float16, 7e4, 8),
        (torch.float16, 6e4, 8),
        (torch.float32, 1e38, 1e6),
        (torch.float32, 1e20, 1e-6),
        (torch.float32, 1e4, 8),
    ],
)
@pytest.mark.parametrize("name", [Q_A, Q_B])
def test_weights_that_would_overflow_when_served_are_refused(
    tmp_path: Path, base: BaseShapes, dtype: torch.dtype, value: float, alpha: float, name: str
) -> None:
    tensors = factors()
    tensors[name][:] = value
    refusal = refused(write_adapter(tmp_path, tensors, lora_alpha=alpha), base, replace(LIMITS, dtype=dtype))
    assert refusal.code == "non_finite_weights"
    assert "would overflow" in refusal.message


def test_a_value_fine_in_float32_is_refused_only_where_it_is_too_large(
    tmp_path: Path, base: BaseShapes
) -> None:
    tensors = {name: tensor / 1e4 for name, tensor in factors().items()}
    tensors[Q_A][0, 0] = 7e4
    write_adapter(tmp_path, tensors)
    assert admit(tmp_path, base, LIMITS).peak > 1
    assert refused(tmp_path, base, replace(LIMITS, dtype=torch.float16)).code == "non_finite_weights"


@pytest.mark.parametrize("zero", ["lora_A", "lora_B", "lora_alpha"])
def test_an_adapter_that_changes_nothing_is_admitted_with_a_warning(
    tmp_path: Path, base: BaseShapes, zero: str
) -> None:
    tensors = {name: tensor * (zero not in name) for name, tensor in factors().items()}
    admission = admit(write_adapter(tmp_path, tensors, lora_alpha=8 * (zero != "lora_alpha")), base, LIMITS)
    assert [warning.partition(":")[0] for warning in admission.warnings] == ["zero_effect"]
    assert admission.peak == 0


@pytest.mark.parametrize("named", ["/home/someone/models/tiny", "C:\\models\\tiny", "org/tiny/", None, ""])
def test_the_same_base_under_another_path_is_no_reason_to_warn(
    tmp_path: Path, base: BaseShapes, named: str | None
) -> None:
    admission = admit(
        write_adapter(tmp_path, base_model_name_or_path=named), base, replace(LIMITS, strict=True)
    )
    assert admission.warnings == ()
    assert admission.base_model_name_or_path == named


def test_another_bases_name_warns_and_in_strict_mode_is_refused(tmp_path: Path, base: BaseShapes) -> None:
    write_adapter(tmp_path, base_model_name_or_path="/home/someone/huge")
    (warning,) = admit(tmp_path, base, LIMITS).warnings
    assert warning.startswith("other_base_name: ")
    refusal = refused(tmp_path, base, replace(LIMITS, strict=True))
    assert refusal.code == "wrong_base"
    assert "'huge'" in refusal.message
    assert "/home" not in refusal.message


def test_the_fingerprint_that_training_recorded_decides_before_names(
    tmp_path: Path, base: BaseShapes
) -> None:
    directory = write_adapter(tmp_path, base_model_name_or_path="org/another-name")
    strict = replace(LIMITS, strict=True)
    assert admit(directory, base, strict, base.fingerprint).warnings == ()
    assert admit(directory, base, LIMITS, "0" * 64).warnings[0].startswith("other_base: ")
    with pytest.raises(AdapterRejected) as error:
        admit(directory, base, strict, "0" * 64)
    assert (error.value.code, error.value.param) == ("wrong_base", "lineage")


def test_the_name_of_the_bases_directory_is_its_name_too(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--org--Tiny" / "snapshots" / "5ca1ab1e"
    for directory, names in ((tmp_path / "mine", ["/elsewhere/mine"]), (snapshot, ["org/Tiny", "5ca1ab1e"])):
        base = BaseShapes.of(write_base(directory), "served-name")
        for name in names:
            admitted = admit(
                write_adapter(tmp_path, base_model_name_or_path=name), base, replace(LIMITS, strict=True)
            )
            assert admitted.warnings == ()


def test_an_unknown_field_warns_and_in_strict_mode_is_refused(tmp_path: Path, base: BaseShapes) -> None:
    write_adapter(tmp_path, note="made on a Monday")
    (warning,) = admit(tmp_path, base, LIMITS).warnings
    assert "'note'" in warning
    assert refused(tmp_path, base, replace(LIMITS, strict=True)).param == "note"


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_a_pickle_is_refused_and_never_opened(tmp_path: Path, base: BaseShapes, name: str) -> None:
    (write_adapter(tmp_path) / "adapter_model.safetensors").unlink()
    # Opening a FIFO without a writer would hang. The test ends, so nothing opened it.
    os.mkfifo(tmp_path / name)
    refusal = refused(tmp_path, base)
    assert (refusal.code, refusal.param) == ("pickle_refused", name)


def test_other_files_beside_a_good_adapter_are_not_read(tmp_path: Path, base: BaseShapes) -> None:
    write_adapter(tmp_path)
    for name in ("adapter_model.bin", "README.md", "evil.py", "tokenizer.json"):
        os.mkfifo(tmp_path / name)
    assert admit(tmp_path, base, LIMITS).rank == 4


@pytest.mark.parametrize(
    ("name", "code"),
    [("adapter_config.json", "missing_config"), ("adapter_model.safetensors", "missing_weights")],
)
def test_each_file_must_be_there_and_be_a_regular_one(
    tmp_path: Path, base: BaseShapes, name: str, code: str
) -> None:
    path = write_adapter(tmp_path / "adapter") / name
    path.rename(tmp_path / "elsewhere")
    assert refused(path.parent, base).code == code
    path.symlink_to(tmp_path / "elsewhere")
    assert admit(path.parent, base, LIMITS).rank == 4
    path.unlink()
    path.symlink_to(tmp_path / "gone")
    assert refused(path.parent, base).code == code
    path.unlink()
    os.mkfifo(path)
    assert refused(path.parent, base).code == "not_a_regular_file"
    path.unlink()
    path.mkdir()
    assert refused(path.parent, base).code == "not_a_regular_file"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_file_is_admitted_or_refused_and_nothing_else(
    tmp_path: Path, base: BaseShapes, data: st.DataObject
) -> None:
    path = write_adapter(tmp_path) / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, 900))
    content[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    path.write_bytes(content)
    try:
        outcome: Admission | AdapterRejected = admit(tmp_path, base, LIMITS)
    except AdapterRejected as refusal:
        outcome = refusal
    assert isinstance(outcome, AdapterRejected) or math.isfinite(outcome.peak)


def test_limits_that_admit_nothing_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="max_lora_rank"):
        AdmissionLimits(max_lora_rank=0, dtype=torch.float32)


def state_dict(tensors: dict[str, torch.Tensor], adapter: str) -> dict[str, torch.Tensor]:
    """With the names that PEFT's `model.state_dict()` has."""
    return {re.sub(r"(lora_[AB])", rf"\1.{adapter}", name): t for name, t in tensors.items()}


@pytest.mark.parametrize("adapter", ["default", "my-sql_2"])
def test_a_state_dict_of_a_model_is_the_same_adapter(tmp_path: Path, base: BaseShapes, adapter: str) -> None:
    plain = write_adapter(tmp_path / "plain", factors())
    named = write_adapter(tmp_path / "named", state_dict(factors(), adapter))
    admitted = admit(named, base, LIMITS)
    assert replace(admitted, warnings=()) == admit(plain, base, LIMITS)
    assert [text.partition(":")[0] for text in admitted.warnings] == ["adapter_name"]
    modules = open_adapter(named).modules
    for name, module in open_adapter(plain).modules.items():
        assert modules[name].digest() == module.digest()


@pytest.mark.parametrize("adapters", [("default", "sql"), ("default", None)])
def test_two_adapters_in_a_file_are_refused(
    tmp_path: Path, base: BaseShapes, adapters: tuple[str, str | None]
) -> None:
    """Also if both have all tensors: one would silently replace the other."""
    tensors: dict[str, torch.Tensor] = {}
    for adapter in adapters:
        tensors |= factors() if adapter is None else state_dict(factors(), adapter)
    directory = write_adapter(tmp_path, tensors)
    refusal = refused(directory, base)
    assert refusal.code == "corrupt_weights"
    assert "2 adapters: 'default'" in refusal.message
    with pytest.raises(AdapterRejected, match="2 adapters"):
        open_adapter(directory)


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_trained_biases_of_a_base_without_biases_change_nothing(
    tmp_path: Path, base: BaseShapes, bias: str
) -> None:
    plain = admit(write_adapter(tmp_path / "plain", factors()), base, LIMITS)
    assert admit(write_adapter(tmp_path / "biases", factors(), bias=bias), base, LIMITS) == plain
    trained = factors() | {Q_A.replace("lora_A.weight", "bias"): torch.ones(WIDTH)}
    refusal = refused(write_adapter(tmp_path / "trained", trained, bias=bias), base)
    assert refusal.code == "unsupported_feature"
    assert 'bias="none"' in refusal.message


def test_eight_bit_values_are_refused_with_what_is_missing(tmp_path: Path, base: BaseShapes) -> None:
    tensors = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in factors().items()}
    refusal = refused(write_adapter(tmp_path, tensors), base)
    assert refusal.code == "unsupported_feature"
    assert "scale" in refusal.message
