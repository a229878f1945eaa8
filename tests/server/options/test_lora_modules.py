"""The forms of --lora-modules."""

from pathlib import Path

import pytest

from lora_compose.server.options.lora_modules import LoraModule, read_modules
from lora_compose.training.testbed.paths import ADAPTERS_DIR

ROLL = str(ADAPTERS_DIR / "roll")


def test_vllms_forms_are_read() -> None:
    texts = [
        f"a={ROLL}",
        f'{{"name": "b", "path": "{ROLL}", "base_model_name": "base"}}',
        f'[{{"name": "c", "path": "{ROLL}"}}, {{"name": "d", "path": "org/repo"}}]',
    ]
    assert read_modules(texts) == (
        LoraModule("a", ROLL),
        LoraModule("b", ROLL, "base"),
        LoraModule("c", ROLL),
        LoraModule("d", "org/repo"),
    )


@pytest.mark.parametrize(
    ("texts", "part"),
    [
        (["a=/nope"], "a: /nope is not a directory"),
        (["a=nope"], "is not a directory"),
        (["a="], "is not a directory"),
        ([f"a b={ROLL}"], "is not a valid name"),
        ([f"={ROLL}"], "is not a valid name"),
        ([ROLL], "must be name=path, or JSON"),
        (['{"name": "a"}'], "must be name=path, or JSON"),
        (['{"name": 1, "path": "x"}'], "must be name=path, or JSON"),
        (['{"name": "a", "path": "org/x", "rank": 8}'], "must be name=path, or JSON"),
        (['{"name": "a", "path": "org/x", "is_3d_lora_weight": true}'], "is not supported"),
        (["[]"], "must be name=path, or JSON"),
        ([f"a={ROLL}", f"a={ROLL}"], "has the name a twice"),
    ],
)
def test_anything_else_is_refused_with_the_flag(texts: list[str], part: str) -> None:
    with pytest.raises(ValueError, match=part) as refused:
        read_modules(texts)
    assert str(refused.value).startswith("--lora-modules ")


def test_a_directory_without_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no adapter_config\.json"):
        read_modules([f"a={tmp_path}"])
