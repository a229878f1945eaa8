import json
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from lora_compose.adapters.admission.base_model import BaseShapes, layer_of
from tests.adapters.adapter_files import write_base


def test_the_linears_are_those_of_the_model_itself_without_its_head(tmp_path: Path) -> None:
    base = BaseShapes.of(write_base(tmp_path), "tiny")
    model = LlamaForCausalLM(LlamaConfig.from_pretrained(tmp_path))
    weights = {
        name.removesuffix(".weight"): tuple(w.shape) for name, w in model.named_parameters() if w.ndim == 2
    }
    ends = {"model.embed_tokens", "lm_head"}
    assert base.linears == {name: shape for name, shape in weights.items() if name not in ends}
    assert base.heads == {"lm_head": weights["lm_head"]}
    assert base.embeddings == {"model.embed_tokens": weights["model.embed_tokens"][::-1]}
    assert not base.tied


def test_layers_are_listed_in_order(tmp_path: Path) -> None:
    base = BaseShapes.of(write_base(tmp_path, num_hidden_layers=12), "tiny")
    assert base.layers == tuple(f"model.layers.{i}" for i in range(12))


@pytest.mark.parametrize(
    ("module", "layer"),
    [
        ("model.layers.3.mlp.up_proj", "model.layers.3"),
        ("transformer.h.10.attn.c", "transformer.h.10"),
        ("lm", None),
    ],
)
def test_the_layer_of_a_module_ends_at_its_first_number(module: str, layer: str | None) -> None:
    assert layer_of(module) == layer


def test_a_quantized_checkpoint_has_the_shapes_it_stands_for(tmp_path: Path) -> None:
    plain = BaseShapes.of(write_base(tmp_path), "tiny")
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert BaseShapes.of(tmp_path, "tiny").linears == plain.linears


def test_code_beside_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    write_base(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "custom", "auto_map": {"AutoConfig": "evil.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ValueError, match="custom"):
        BaseShapes.of(tmp_path, "tiny")
    assert not (tmp_path / "ran").exists()
