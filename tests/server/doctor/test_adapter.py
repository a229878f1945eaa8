"""Real adapters for the shipped base, with one fault in each, checked by the real admission."""

import ast
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from vllm.platforms import current_platform

from lora_compose.adapters import errors
from lora_compose.adapters.errors import Code
from lora_compose.server.config import EMBEDDED_BASE
from lora_compose.server.doctor.adapter import ADVICE, admission
from lora_compose.training.testbed.paths import ADAPTERS_DIR
from tests.adapters.adapter_files import write_adapter

ADAPTERS = Path(errors.__file__).resolve().parent
REFUSALS = ("AdapterRejected", "_refusal")
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(ADAPTERS_DIR / "roll", tmp_path / "roll"))


def edit(directory: Path, **changes: object) -> None:
    file = directory / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def poison(directory: Path) -> None:
    tensors = load_file(directory / WEIGHTS)
    first = sorted(tensors)[0]
    tensors[first] = torch.full_like(tensors[first], torch.nan)
    save_file(tensors, directory / WEIGHTS)


BROKEN: list[tuple[Callable[[Path], object], str]] = [
    (lambda d: (d / "adapter_config.json").unlink(), "missing_config"),
    (lambda d: (d / WEIGHTS).unlink(), "missing_weights"),
    (lambda d: (d / WEIGHTS).rename(d / "adapter_model.bin"), "pickle_refused"),
    (lambda d: (d / WEIGHTS).write_bytes((d / WEIGHTS).read_bytes()[:-9]), "corrupt_weights"),
    (lambda d: edit(d, r=4), "rank_mismatch"),
    (lambda d: edit(d, r=128), "rank_too_large"),
    (lambda d: edit(d, r="8"), "bad_rank"),
    (lambda d: edit(d, modules_to_save=["lm_head"]), "unsupported_feature"),
    (write_adapter, "wrong_base"),
    (poison, "non_finite_weights"),
]


@pytest.mark.parametrize("name", sorted(path.name for path in ADAPTERS_DIR.iterdir()))
def test_the_shipped_adapters_are_admitted(name: str) -> None:
    found = admission(ADAPTERS_DIR / name, EMBEDDED_BASE, 64)
    assert (found.status, found.advice) == ("ok", ""), found


@pytest.mark.parametrize(("damage", "code"), BROKEN, ids=[code for _, code in BROKEN])
def test_a_broken_one_fails_with_the_server_s_own_code_and_what_to_do(
    damage: Callable[[Path], object], code: str, copy: Path
) -> None:
    damage(copy)
    found = admission(copy, EMBEDDED_BASE, 64)
    assert (found.status, found.sentence.endswith(f"({code})")) == ("fail", True), found
    assert found.advice == ADVICE[Code(code)]


def test_dora_is_admitted_where_the_kernels_scale_rows(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = load_file(copy / WEIGHTS)
    magnitudes = {
        name.replace("lora_B.weight", "lora_magnitude_vector"): torch.ones(len(tensor))
        for name, tensor in tensors.items()
        if "lora_B" in name
    }
    save_file(tensors | magnitudes, copy / WEIGHTS)
    edit(copy, use_dora=True)
    assert admission(copy, EMBEDDED_BASE, 64).status == "ok"
    monkeypatch.setattr(type(current_platform), "device_type", "cuda")
    found = admission(copy, EMBEDDED_BASE, 64)
    assert (found.status, found.sentence.endswith("(unsupported_feature)")) == ("fail", True)
    assert "low-rank products" in found.sentence


def test_a_name_of_another_base_is_a_warning(copy: Path) -> None:
    edit(copy, base_model_name_or_path="org/other")
    found = admission(copy, EMBEDDED_BASE, 64)
    assert (found.status, "'other'" in found.sentence) == ("warn", True)


def test_every_code_of_admission_has_advice() -> None:
    codes = set()
    for path in ADAPTERS.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            is_call = isinstance(node, ast.Call) and getattr(node.func, "id", "") in REFUSALS
            if isinstance(node, ast.Call) and is_call and node.args:
                codes |= {Code[name] for name in re.findall(r"\bCode\.(\w+)", ast.unparse(node.args[0]))}
    assert len(codes) > 10
    assert codes <= ADVICE.keys()
