"""Faults of an adapter's two files: a config or weights that are wrong in one way."""

import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.campaigns.faults.broken_adapter import (
    WEIGHTS,
    Break,
    Tensors,
    config,
    config_replaced,
    config_text,
    each,
    header,
    made,
    rejected,
    tensors,
    weights,
)
from tests.campaigns.faults.fault import Act, Fault
from tests.campaigns.faults.target import Target

NAN, INF = float("nan"), float("inf")


class Trap:
    """Makes a directory when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


def _configs(code: str, **changes: list[Any]) -> dict[str, Act]:
    return {
        f"{field} = {value!r:.40}": rejected(code, config(**{field: value}))
        for field, values in changes.items()
        for value in values
    }


def _first(given: Tensors, part: str = "lora_A") -> str:
    return next(key for key in sorted(given) if part in key)


def _one(value: float) -> Any:
    """Changes one number of one tensor."""

    def change(given: Tensors) -> Tensors:
        given[_first(given, "lora_B")].view(-1)[-1] = value
        return given

    return tensors(change)


def _renamed(old: str, new: str) -> Any:
    return tensors(lambda given: {key.replace(old, new): value for key, value in given.items()})


def _without(part: str) -> Any:
    return tensors(lambda given: {key: value for key, value in given.items() if key != _first(given, part)})


def _as(dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda tensor: tensor.to(dtype)


def _length(length: int) -> Callable[[bytes], bytes]:
    return lambda data: struct.pack("<Q", length) + data[8:]


def _first_tensor(**changes: object) -> Break:
    return header(lambda found: next(found[key] for key in found if "lora" in key).update(changes))


def _pickled(directory: Path) -> None:
    (directory / WEIGHTS).unlink()
    (directory / "adapter_model.bin").write_bytes(pickle.dumps(Trap(directory / "canary")))


def _benign_pickle(directory: Path) -> None:
    (directory / WEIGHTS).unlink()
    torch.save({"x": torch.zeros(1)}, directory / "adapter_model.bin")


def _pickle_in_disguise(directory: Path) -> None:
    (directory / WEIGHTS).write_bytes(pickle.dumps(Trap(directory / "canary")))


def _unopened(act: Act) -> Act:
    """Also checks that the directory of `Trap` was not made."""

    def checked(target: Target) -> list[str]:
        found = list(act(target))
        assert not (target.root / "case" / "canary").exists(), "the pickle ran"
        return found

    return checked


def _zip(directory: Path) -> None:
    with zipfile.ZipFile(directory / WEIGHTS, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../evil", b"x")
        archive.writestr("bomb", bytes(10 << 20))


def _half_coverage(target: Target) -> list[str]:
    kept = tensors(lambda given: {key: value for key, value in given.items() if ".layers.0." in key})
    with target.registered(made(target, kept)) as version:
        assert version["coverage"], version
    return ["201 with its coverage"]


def _other_base_name(target: Target) -> list[str]:
    with target.registered(made(target, config(base_model_name_or_path="somebody/else"))) as version:
        assert version["warnings"], version
    return ["201 with a warning"]


def _alpha_zero(target: Target) -> list[str]:
    """With a scale of zero, the adapter answers as the base does."""
    with target.registered(made(target, config(lora_alpha=0))):
        texts = [
            target.generate({"model": model}).json()["choices"][0]["text"]
            for model in ("case", "testbed-base")
        ]
    assert texts[0] == texts[1]
    return ["201, answers as the base"]


NO_CONFIG: dict[str, str | bytes] = {
    "broken": "{",
    "a list": "[]",
    "null": "null",
    "empty": "",
    "100,000 deep": "[" * 100_000,
    "an object 100,000 deep": '{"a":' * 100_000,
    "100 MB": b" " * (100 << 20) + b"{}",
    "not UTF-8": b"\xff\xfe{}",
    "NUL": b'{"r": 4}\0',
    "a number of 10,000 digits": '{"r": ' + "9" * 10_000 + "}",
}
UNSERVED = (torch.int8, torch.uint8, torch.int64, torch.bool)
LENGTHS = (0, 1, 2**31, 2**62, 2**63, 2**64 - 1)
FAULTS = (
    Fault(
        "A config that is not a JSON object",
        {label: rejected("bad_adapter_config", config_text(text)) for label, text in NO_CONFIG.items()}
        | {
            "duplicate keys": rejected("bad_adapter_config", config_replaced("{", '{"r": 1, ')),
        },
        audited=True,
    ),
    Fault(
        "An invalid rank",
        _configs("bad_rank", r=[0, -1, 10**9, "8", 8.5, True, None, [8], {}])
        | {"NaN": rejected("bad_adapter_config", config(r=NAN))},
        audited=True,
    ),
    Fault("A rank above the limit", _configs("rank_too_large", r=[65, 128, 65_536]), audited=True),
    Fault("A rank that differs from the tensors", _configs("rank_mismatch", r=[1, 2, 16]), audited=True),
    Fault(
        "A scale that is invalid or far too large",
        _configs("bad_alpha", lora_alpha=["16", 1e38, -1e38, "-16", True, None, [16]])
        | {
            label: rejected("bad_adapter_config", config(lora_alpha=v))
            for label, v in {"NaN": NAN, "∞": INF}.items()
        },
        audited=True,
    ),
    Fault("A scale of zero", {"lora_alpha = 0": _alpha_zero}),
    Fault(
        "A PEFT feature that is not supported",
        _configs(
            "unsupported_feature",
            modules_to_save=[["lm_head"]],
            init_lora_weights=["pissa", "pissa_niter_4", "olora", "corda"],
            peft_type=["IA3", "PREFIX_TUNING", "ADALORA", ""],
            trainable_token_indices=[[1, 2]],
            layer_replication=[[[0, 2]]],
        ),
        audited=True,
    ),
    Fault("DoRA without its magnitudes", _configs("corrupt_weights", use_dora=[True]), audited=True),
    Fault(
        "DoRA together with lora_bias",
        {"both": rejected("bad_adapter_config", config(use_dora=True, lora_bias=True))},
        audited=True,
    ),
    Fault(
        "Weights that are not a safetensors file",
        {
            label: rejected("corrupt_weights", broken)
            for label, broken in {
                "empty": weights(lambda _: b""),
                "7 bytes": weights(lambda data: data[:7]),
                "half": weights(lambda data: data[: len(data) // 2]),
                "one byte short": weights(lambda data: data[:-1]),
                "one byte more": weights(lambda data: data + b"\0"),
                "random": weights(lambda data: os.urandom(len(data))),
                "zeros": weights(lambda data: bytes(len(data))),
                "a zip that is a bomb": _zip,
                "text": weights(lambda _: b"<html></html>" * 100),
                **{f"a header of {length} bytes": weights(_length(length)) for length in LENGTHS},
                "offsets beyond the file": _first_tensor(data_offsets=[0, 2**40]),
                "negative offsets": _first_tensor(data_offsets=[-4, 0]),
                "a shape of another size": _first_tensor(shape=[3, 3]),
                "a shape that overflows": _first_tensor(shape=[2**33, 2**33]),
                "an unknown dtype": _first_tensor(dtype="F7"),
                "metadata that is a list": header(lambda h: h.update(__metadata__=[1])),
                "a tensor that is a string": header(lambda h: h.update(x="y")),
            }.items()
        },
        audited=True,
    ),
    Fault(
        "Weights that are not finite, or not finite in the served dtype",
        {
            label: rejected("non_finite_weights", broken)
            for label, broken in {
                "one NaN": _one(NAN),
                "one ∞": _one(INF),
                "one −∞": _one(-INF),
                "all NaN": each(lambda t: torch.full_like(t, NAN)),
                "a scale that overflows": each(lambda t: torch.full_like(t, 3.4e38)),
            }.items()
        },
        audited=True,
    ),
    Fault(
        "Tensors for another base",
        {
            "half as wide": rejected("wrong_base", each(lambda t: t[:, : t.shape[1] // 2], "lora_A")),
            "twice as wide": rejected("wrong_base", each(lambda t: torch.cat([t, t], 1), "lora_A")),
            "half as high": rejected("wrong_base", each(lambda t: t[: t.shape[0] // 2], "lora_B")),
            "transposed": rejected("wrong_base", each(lambda t: t.T, "lora_B")),
            "one dimension": rejected("wrong_base", each(lambda t: t.reshape(-1))),
            "three dimensions": rejected("wrong_base", each(lambda t: t[None])),
            "no numbers": rejected("wrong_base", each(lambda t: t[:, :0], "lora_A")),
        },
        audited=True,
    ),
    Fault(
        "Tensors for modules and keys that do not exist",
        {
            "layer 99": rejected("unknown_layer", _renamed(".layers.0.", ".layers.99.")),
            "an unknown module": rejected("unknown_module", _renamed("q_proj", "w_proj")),
            "no tensors": rejected("corrupt_weights", tensors(lambda _: {})),
            "a key of its own": rejected(
                "unknown_module", tensors(lambda g: g | {"hello": torch.zeros(2, 2)})
            ),
            "no A": rejected("corrupt_weights", _without("lora_A")),
            "no B": rejected("corrupt_weights", _without("lora_B")),
        },
        audited=True,
    ),
    Fault(
        "A tensor type that is not supported",
        {str(dtype): rejected("unsupported_feature", each(_as(dtype))) for dtype in UNSERVED},
        audited=True,
    ),
    Fault(
        "A pickle",
        {
            "malicious": _unopened(rejected("pickle_refused", _pickled)),
            "benign": rejected("pickle_refused", _benign_pickle),
            "under a safe name": _unopened(rejected("corrupt_weights", _pickle_in_disguise)),
        },
        audited=True,
    ),
    Fault("Missing layers", {"all but the first": _half_coverage}),
    Fault("Another base's name with shapes that fit", {"a warning": _other_base_name}),
)
