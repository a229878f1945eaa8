"""Says what a directory has in place of a PEFT adapter, by the names of its files, and what to do."""

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lora_compose.adapters.errors import AdapterRejected, Code
from lora_compose.adapters.peft.files import CONFIG_FILE, MISSING, WEIGHTS_FILE
from lora_compose.adapters.safe_files import ConfinedDirectory, OutsideRoots, confined_directory

_CONVERT_PICKLE = "Write it as safetensors with `lora-compose adapters convert DIR OUT`"

# Names of files that other tools write in place of PEFT's two: (pattern, what it is, what to do).
_OTHER_FILES: tuple[tuple[str, str, str], ...] = (
    (
        r"(\d+_)?adapters\.(safetensors|npz)",
        "is an adapter of MLX (mlx_lm)",
        "Transpose its lora_a and lora_b, and save them with PEFT's names and config",
    ),
    (
        r"adapter_model.*-of-.*|adapter_model.*\.index\.json",
        "is a part of an adapter that was saved in several files, and PEFT reads one",
        f"Join the tensors of the parts in one {WEIGHTS_FILE}",
    ),
    (
        r".*\.(incomplete|part|crdownload|aria2|tmp)",
        "is an incomplete download",
        "Download the adapter again",
    ),
    (r".*\.gguf", "is in llama.cpp's format GGUF", "Register the PEFT adapter that it was made from"),
    (
        r"pytorch_lora_weights\.(safetensors|bin)|.*unet.*\.safetensors",
        "is a LoRA of an image model (diffusers)",
        "This server serves language models",
    ),
    (r"lit_model.*", "is a checkpoint of LitGPT", "Convert it to PEFT with LitGPT's scripts"),
    (r"adapter_\d+\.(pt|safetensors)", "is an adapter of torchtune", "Let torchtune save in PEFT's format"),
    (r".*\.nemo", "is a checkpoint of NeMo", "Export it to PEFT with NeMo's scripts"),
    (
        r".*\.distcp|pytorch_model_fsdp.*|zero_to_fp32\.py|global_step\d+|mp_rank_.*",
        "belongs to a distributed checkpoint (FSDP, DeepSpeed, Megatron)",
        "Gather the weights, and save the adapter with PEFT's save_pretrained",
    ),
    (
        r"model(-\d+-of-\d+)?\.safetensors|pytorch_model.*\.bin|model\.safetensors\.index\.json",
        "belongs to a whole model and not to an adapter",
        "Serve it with `lora-compose serve --model DIR`, or save the adapter with PEFT's save_pretrained",
    ),
    (
        r".*\.(zip|tar|tgz|tar\.\w+|7z|rar)",
        "is an archive",
        "Unpack it, and name the directory of the two files",
    ),
    (r".*\.safetensors", f"is not named {WEIGHTS_FILE}", "If it has the adapter's weights, rename it"),
)
_PICKLES = re.compile(r"adapter_model.*\.(bin|pt|pth|ckpt)")


def what_name_is(name: str) -> str | None:
    """What the file with this name is and what to do, to follow its name. None if it is unknown."""
    for pattern, what, advice in _OTHER_FILES:
        if re.fullmatch(pattern, name, re.IGNORECASE):
            return f"{what}. {advice}"
    return None


def check_directory(path: Path) -> None:
    """`refuse_other_formats` for a directory that the user of this process chose. Raises OSError too."""
    with confined_directory([Path("/")], str(path)) as directory:
        refuse_other_formats(directory)


def refuse_other_formats(directory: ConfinedDirectory) -> None:
    """Raises AdapterRejected pickle_refused, missing_config or missing_weights if one of the two files is not
    there: it names adapters in subdirectories, or what is there instead."""
    names = directory.names()
    missing = next((name for name in MISSING if name not in names), None)
    if missing is None:
        return
    if CONFIG_FILE not in names and (inner := list(_adapters_in(directory, DEEPEST))):
        raise AdapterRejected(MISSING[CONFIG_FILE], _inner_adapters(sorted(inner, key=_natural)), CONFIG_FILE)
    pickles = [name for name in names if _PICKLES.fullmatch(name)]
    if pickles and WEIGHTS_FILE not in names:
        message = f"{pickles[0]} is a pickle. It is not opened, because it can run code. {_CONVERT_PICKLE}."
        raise AdapterRejected(Code.PICKLE_REFUSED, message, pickles[0])
    message = f"The adapter has no file {missing}. {_instead(names)}"
    raise AdapterRejected(MISSING[missing], message, missing)


def _instead(names: list[str]) -> str:
    for name in sorted(set(names) - MISSING.keys(), key=_importance):
        if (found := what_name_is(name)) is not None:
            return f"{name:.80} {found}."
    return "Add it." if names else "The directory is empty."


def _importance(name: str) -> tuple[int, str]:
    """The order in which files are looked at: that of _OTHER_FILES."""
    for order, (pattern, _, _) in enumerate(_OTHER_FILES):
        if re.fullmatch(pattern, name, re.IGNORECASE):
            return order, name
    return len(_OTHER_FILES), name


DEEPEST = 3
"""How deep adapters are searched. The cache of the Hub has models--org--name/snapshots/<revision>/."""
MAX_DIRECTORIES = 200
SHOWN = 8


def _adapters_in(directory: ConfinedDirectory, depth: int) -> Iterator[str]:
    """The relative paths of the directories below, at most `depth` levels, that have an adapter's config."""
    for name in directory.names()[:MAX_DIRECTORIES]:
        with suppress(OSError, OutsideRoots), directory.inner(name) as inner:
            if CONFIG_FILE in inner.names():
                yield name
            elif depth > 1:
                yield from (f"{name}/{found}" for found in _adapters_in(inner, depth - 1))


def _inner_adapters(found: list[str]) -> str:
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    shown = ", ".join(f"{name:.100}" for name in found[:SHOWN])
    return (
        f"The directory has no {CONFIG_FILE}, but there are adapters in its subdirectories: {shown}{more}. "
        "Register one of these directories (of the Hub as org/repo:directory)."
    )


def _natural(name: str) -> list[tuple[int, str]]:
    """ "checkpoint-9" before "checkpoint-10"."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
