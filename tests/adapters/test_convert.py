import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    DeloraConfig,
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    MissConfig,
    PeftModel,
    VeraConfig,
    get_peft_model,
)
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from lora_compose.adapters.admission.admit import AdmissionLimits, admit
from lora_compose.adapters.admission.base_model import BaseShapes
from lora_compose.adapters.command_line import main
from lora_compose.adapters.convert import Conversion, convert
from lora_compose.adapters.errors import AdapterRejected, LoraComposeError
from lora_compose.adapters.peft.checkpoint import open_adapter
from lora_compose.adapters.peft.kinds import CONVERTIBLE
from tests.adapters.adapter_files import CONFIG, write_adapter

TARGETS = ["q_proj", "v_proj", "down_proj"]
LIMITS = AdmissionLimits(max_lora_rank=64, dtype=torch.float32)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole tiny Llama with random weights."""
    directory = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def trained(base: Path, directory: Path, config: Any) -> Path:
    """An adapter of the kind of `config` with random weights."""
    torch.manual_seed(1)
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base), config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn_like(parameter) * 0.2
    model.save_pretrained(directory)
    return directory


KINDS: dict[str, Callable[[], Any]] = {
    "LOHA": lambda: LoHaConfig(r=2, alpha=4, target_modules=TARGETS),
    "LOKR": lambda: LoKrConfig(r=2, alpha=4, target_modules=TARGETS),
    "VERA": lambda: VeraConfig(r=4, target_modules=TARGETS[:1]),
    "DELORA": lambda: DeloraConfig(r=4, target_modules=TARGETS),
    "MISS": lambda: MissConfig(r=4, target_modules=TARGETS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_at_full_energy_the_lora_answers_as_the_original_does(base: Path, tmp_path: Path, kind: str) -> None:
    original = trained(base, tmp_path / kind, KINDS[kind]())
    found = convert(original, tmp_path / "lora", str(base), 1.0)
    assert found.kind == kind
    assert found.error < 1e-5
    admission = admit(tmp_path / "lora", BaseShapes.of(base, base.name), LIMITS)
    assert admission.warnings == ()
    prompt = torch.tensor([[1, 2, 3, 4]])
    answers = []
    for adapter in (original, tmp_path / "lora"):
        with torch.no_grad():
            answers.append(
                PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), adapter)(prompt).logits
            )
    assert torch.allclose(answers[0], answers[1], atol=1e-5)


def test_a_chosen_rank_is_the_best_of_that_rank_and_its_error_is_reported(base: Path, tmp_path: Path) -> None:
    original = trained(base, tmp_path / "loha", KINDS["LOHA"]())
    found = convert(original, tmp_path / "lora", str(base), 2)
    assert found.rank == 2
    model = PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), original)
    layers = {
        n.removeprefix("base_model.model."): m
        for n, m in model.named_modules()
        if isinstance(m, BaseTunerLayer)
    }
    modules = open_adapter(tmp_path / "lora").modules
    for module in found.modules:
        delta = layers[module.name].get_delta_weight("default")
        values = torch.linalg.svdvals(delta.double())
        best = float(values[2:].norm() / values.norm())
        assert module.error == pytest.approx(best, rel=1e-4)
        left = (delta - modules[module.name].delta()).norm() / delta.norm()
        assert float(left) == pytest.approx(best, rel=1e-4)


def test_the_energy_bounds_the_error(base: Path, tmp_path: Path) -> None:
    original = trained(base, tmp_path / "loha", KINDS["LOHA"]())
    found = convert(original, tmp_path / "lora", str(base), 0.9)
    assert 0.01 < found.error <= 0.1**0.5
    assert all(module.error <= 0.1**0.5 for module in found.modules)
    assert min(module.rank for module in found.modules) < 4


@pytest.mark.parametrize(
    "config",
    [
        IA3Config(target_modules=TARGETS, feedforward_modules=["down_proj"]),
        LoraConfig(target_modules=TARGETS),
    ],
)
def test_what_cannot_be_converted_is_refused(base: Path, tmp_path: Path, config: Any) -> None:
    original = trained(base, tmp_path / "original", config)
    with pytest.raises(LoraComposeError) as refused:
        convert(original, tmp_path / "lora", str(base))
    assert refused.value.code == "not_convertible"
    assert not (tmp_path / "lora").exists()


def test_an_adapter_of_another_base_and_a_missing_base_are_one_line(base: Path, tmp_path: Path) -> None:
    original = trained(base, tmp_path / "loha", KINDS["LOHA"]())
    other = LlamaConfig(
        vocab_size=64, hidden_size=16, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    LlamaForCausalLM(other).save_pretrained(tmp_path / "other")
    for model in (tmp_path / "other", tmp_path / "nothing"):
        with pytest.raises(LoraComposeError) as refused:
            convert(original, tmp_path / "lora", str(model))
        assert refused.value.code == "not_convertible"
        assert "\n" not in refused.value.message


def test_a_pickled_lora_becomes_safetensors(tmp_path: Path) -> None:
    written = write_adapter(tmp_path / "lora")
    tensors = load_file(written / "adapter_model.safetensors")
    (tmp_path / "pickled").mkdir()
    torch.save(tensors, tmp_path / "pickled" / "adapter_model.bin")
    (written / "adapter_config.json").rename(tmp_path / "pickled" / "adapter_config.json")
    assert convert(tmp_path / "pickled", tmp_path / "out") == Conversion("LORA", ())
    found = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("/tmp/evil-was-run"),))


@pytest.mark.parametrize("content", [{"a": Evil()}, [torch.ones(2)], {"a": 7}, b"no pickle"])
def test_a_pickle_of_anything_but_tensors_is_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps(CONFIG))
    if isinstance(content, bytes):
        (tmp_path / "adapter_model.bin").write_bytes(content)
    else:
        torch.save(content, tmp_path / "adapter_model.bin")
    with pytest.raises(AdapterRejected) as refused:
        convert(tmp_path, tmp_path / "out")
    assert refused.value.code == "corrupt_weights"
    assert not Path("/tmp/evil-was-run").exists()


def test_the_command_reports_the_error_and_the_next_command(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    original = trained(base, tmp_path / "loha", KINDS["LOHA"]())
    arguments = ["adapters", "convert", str(original), str(tmp_path / "lora"), "--model", str(base)]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--rank", "2"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "all 6 modules" in printed
    assert "lora-compose adapters add NAME" in printed
    with pytest.raises(SystemExit):
        main([*arguments, "--force", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["kind"] == "LOHA"
    assert 0 < facts["error"] < 0.032
    assert set(facts["modules"]) == {
        f"model.layers.{layer}.{module}"
        for layer in (0, 1)
        for module in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
    }


def overrides(tuner: type) -> bool:
    """Whether a layer of the kind has its own answer to PEFT's question for support."""
    try:
        module = importlib.import_module(tuner.__module__.rpartition(".")[0] + ".layer")
    except ImportError:
        return False
    classes = [found for found in vars(module).values() if isinstance(found, type)]
    asked = BaseTunerLayer.supports_lora_conversion
    return any(
        issubclass(found, BaseTunerLayer) and getattr(found, asked.__name__) is not asked
        for found in classes
        if found.__module__ == module.__name__
    )


def test_the_convertible_kinds_are_pefts() -> None:
    found = {kind.value for kind, tuner in PEFT_TYPE_TO_TUNER_MAPPING.items() if overrides(tuner)}
    assert found - {"LORA", "HIRA", "SHIRA"} == CONVERTIBLE  # the answer of the last two is no
