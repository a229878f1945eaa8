"""A model with a composition on it, in this process: one PEFT adapter, made as `compose` makes it."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adapters.errors import LoraComposeError


@dataclass(frozen=True)
class Loaded:
    """A base, perhaps with an adapter that `model.disable_adapter()` switches off."""

    model: Any
    tokenizer: Any
    digests: Mapping[str, str] = field(default_factory=dict)
    """Of each member, by `name@version` or the name of a plain directory, in the composition's order."""


@contextmanager
def composed(
    base: str, composition: str | None, directories: Mapping[str, Path], data_dir: Path
) -> Iterator[Loaded]:
    """Raises LoraComposeError("base_not_loaded"), and what parsing, finding and merging raise."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(base)
        model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    except (OSError, ValueError) as error:
        raise LoraComposeError("base_not_loaded", f"{base}: {error}", "model") from error
    if composition is None:
        yield Loaded(model, tokenizer)
        return
    with tempfile.TemporaryDirectory(prefix="lora-compose-eval-") as scratch:
        adapter = Path(scratch, "adapter")
        digests = _write(composition, directories, data_dir, adapter)
        from peft import PeftModel

        yield Loaded(PeftModel.from_pretrained(model, adapter), tokenizer, digests)


def _write(composition: str, directories: Mapping[str, Path], data_dir: Path, output: Path) -> dict[str, str]:
    from adapters.composition_grammar import parse
    from adapters.export import export, find_members
    from adapters.store import content_of

    asked = parse(composition, "composition")
    found = find_members(asked, directories, data_dir)
    export(asked, found, output)
    return {each.id: content_of(each.directory).digest for each in found}
