"""Saving and predicting warn of members that are likely to be lost, and change nothing else."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from safetensors.torch import load_file, save_file

from lora_compose.adapters.peft.files import CONFIG_FILE, WEIGHTS_FILE
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.server.app_without_engine import app_without_engine, register_shipped


def warnings(client: httpx.Client, model: str) -> list[dict[str, Any]]:
    reply = client.post("/v1/compositions?dry_run=true", json={"model": model})
    found: list[dict[str, Any]] = reply.raise_for_status().json()["warnings"]
    return found


def codes_of(client: httpx.Client, model: str) -> list[str]:
    return [one["code"] for one in warnings(client, model)]


def changed_copy(
    home: Path, name: str, *, base: str | None = None, modules: str = "", factor: float = 1
) -> Path:
    """`roll` with another base's name, with only the modules that contain `modules`, or times `factor`."""
    directory = home / name
    directory.mkdir()
    config = json.loads((ADAPTERS_DIR / "roll" / CONFIG_FILE).read_text())
    if base is not None:
        config["base_model_name_or_path"] = base
    tensors = load_file(ADAPTERS_DIR / "roll" / WEIGHTS_FILE)
    kept = {
        key: tensor * (factor if "lora_B" in key else 1) for key, tensor in tensors.items() if modules in key
    }
    config["target_modules"] = sorted({key.split(".")[-3] for key in kept})
    (directory / CONFIG_FILE).write_text(json.dumps(config))
    save_file(kept, directory / WEIGHTS_FILE)
    return directory


def add(client: httpx.Client, directory: Path) -> None:
    body = {"name": directory.name, "path": str(directory)}
    client.post("/v1/adapters", json=body).raise_for_status()


def test_two_members_that_change_the_same_directions_are_told_when_saved(tmp_path: Path) -> None:
    with app_without_engine(tmp_path) as app, app.client() as client:
        register_shipped(client, ["bang", "polite", "upper"])
        body = {"name": "both", "model": "bang+polite"}
        reply = client.post("/v1/compositions", json=body)
        assert reply.status_code == 201
        (warning,) = reply.json()["warnings"]
        assert warning["code"] == "same_directions"
        assert "cosine 0.19" in warning["message"]
        assert warnings(client, warning["suggested"]) == []
        assert warnings(client, "bang:0.5+polite") == []
        assert warnings(client, "bang:-1+polite") == []
        assert warnings(client, "upper+polite") == []
        assert warnings(client, "bang") == []


def test_a_much_larger_member_is_told_at_the_weights_of_the_request(tmp_path: Path) -> None:
    with app_without_engine(tmp_path) as app, app.client() as client:
        register_shipped(client, ["code", "upper"])
        (warning,) = warnings(client, "code+upper")
        assert warning["code"] == "much_larger"
        assert "3.1 times" in warning["message"]
        assert warning["suggested"] == "code+upper:0.75"
        assert warnings(client, "code:0.5+upper") == []
        assert warnings(client, warning["suggested"]) == []


def test_other_modules_zeros_and_another_base_are_told(tmp_path: Path) -> None:
    with app_without_engine(tmp_path) as app, app.client() as client:
        register_shipped(client, ["upper"])
        add(client, changed_copy(tmp_path, "attention", modules="self_attn"))
        add(client, changed_copy(tmp_path, "mlp", modules="mlp"))
        add(client, changed_copy(tmp_path, "zero", factor=0))
        add(client, changed_copy(tmp_path, "foreign", base="acme/other-base"))
        assert codes_of(client, "attention+mlp") == ["no_shared_modules"]
        assert codes_of(client, "upper+zero") == ["zero_effect"]
        assert codes_of(client, "upper+foreign") == ["different_bases", "same_directions"]


@pytest.mark.parametrize("method", ["ties", "dare_ties"])
def test_a_mean_has_no_warning_about_sums(tmp_path: Path, method: str) -> None:
    with app_without_engine(tmp_path) as app, app.client() as client:
        register_shipped(client, ["bang", "polite"])
        assert warnings(client, f"{method}(bang+polite,density=0.5)") == []


def test_the_figures_of_the_comparison_are_those_of_the_dense_deltas(tmp_path: Path) -> None:
    from lora_compose.adapters.merging import low_rank
    from lora_compose.adapters.merging.interference import interference
    from lora_compose.adapters.peft.checkpoint import open_adapter

    found = interference([ADAPTERS_DIR / "bang", ADAPTERS_DIR / "polite"])
    left, right = (open_adapter(ADAPTERS_DIR / name).modules for name in ("bang", "polite"))
    flat = [torch.cat([m[name].delta().double().flatten() for name in sorted(m)]) for m in (left, right)]
    pair, norms = found.pairs[0], [strength.norm for strength in found.strengths]
    assert norms == pytest.approx([float(vector.norm()) for vector in flat])
    assert pair.cosine == pytest.approx(float(flat[0] @ flat[1] / flat[0].norm() / flat[1].norm()))
    assert found.norm_of_sum([1.0, 0.5]) == pytest.approx(float((flat[0] + 0.5 * flat[1]).norm()))
    parts = [
        tuple(low_rank.svd(low_rank.LowRank(B=m.lora_B.double(), A=m.lora_A.double())) for m in both)
        for both in zip(left.values(), right.values(), strict=True)
    ]
    overlaps = [low_rank.overlap(first, second) for first, second in parts]
    assert pair.subspace == pytest.approx(sum(overlaps) / len(overlaps))
