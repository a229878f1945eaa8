import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.planning.cli import app
from lora_compose.training.testbed.paths import BASE_DIR


def plan(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_a_plan_shows_parts_cards_grid_and_advice() -> None:
    shown = plan("--model", "llama-3-70b").stdout
    assert "70,553,706,496 parameters" in shown
    assert "quantization constants" in shown
    assert "Does not fit on 24 GB" in " ".join(shown.split())


def test_json_holds_the_same_in_bytes() -> None:
    facts = json.loads(plan("--model", "llama-3-8b", "--method", "full", "--json").stdout)
    parts = {name: size for name, size in facts["bytes"].items() if name != "total"}
    assert sum(parts.values()) == facts["bytes"]["total"]
    assert facts["trained_parameters"] == facts["parameters"] == 8_030_261_248
    assert len(facts["grid"]) == 24


@pytest.mark.parametrize("model", [BASE_DIR, BASE_DIR / "config.json"])
def test_a_directory_and_its_config_are_the_same_model(model: Path) -> None:
    facts = json.loads(plan("--model", str(model), "--target-modules", "q_proj, v_proj", "--json").stdout)
    assert facts["parameters"] < 1e6
    assert facts["settings"]["target_modules"] == ["q_proj", "v_proj"]


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"model_type": "mamba", "hidden_size": 32, "num_hidden_layers": 2}, "unknown_architecture"),
        ({"model_type": "phi3", "num_attention_heads": 0}, "bad_config"),
        ({"model_type": "llama", "num_hidden_layers": 0}, "bad_config"),
        ({"model_type": "llama", "hidden_size": -32}, "bad_config"),
        ({"model_type": "no-such-type"}, "unknown_architecture"),
        ({"model_type": "llama", "quantization_config": {}}, "already_quantized"),
        ({"model_type": "llama", "hidden_size": "big"}, "bad_config"),
        ({"hidden_size": 8}, "bad_config"),
        ([], "bad_config"),
    ],
)
def test_a_config_that_cannot_be_counted_is_refused(config: Any, code: str, tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    refusal = plan("--model", str(file)).exception
    assert isinstance(refusal, LoraComposeError)
    assert refusal.code == code


def test_a_type_that_cannot_be_planned_says_what_is_known(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"model_type": "gpt_oss", "num_hidden_layers": 2}))
    refusal = plan("--model", str(file)).exception
    assert isinstance(refusal, LoraComposeError)
    assert "It has 7,584,430,144 parameters: 14.1 GiB" in refusal.message


def test_a_mixture_says_what_is_adapted_and_what_is_not_quantized() -> None:
    facts = json.loads(plan("--model", "mixtral-8x7b", "--json").stdout)
    assert [word for note in facts["notes"] for word in ("routers", "not quantize") if word in note] == [
        "routers",
        "not quantize",
    ]
    # the experts' 45.1 B parameters stay in two bytes each
    assert facts["bytes"]["weights"] > 45_097_156_608 * 2
    attention = json.loads(
        plan("--model", "mixtral-8x7b", "--target-modules", "q_proj,v_proj", "--json").stdout
    )
    assert attention["trained_parameters"] == 32 * 16 * ((4096 + 4096) + (4096 + 1024))


def test_an_unknown_model_is_refused_with_the_names_that_work_offline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refusal = plan("--model", "nobody/nothing").exception
    assert isinstance(refusal, LoraComposeError)
    assert refusal.code == "model_not_found"
    assert "llama-3-70b" in refusal.message


def test_help_imports_nothing_slow() -> None:
    code = (
        "import sys, lora_compose.training.planning.cli; "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
