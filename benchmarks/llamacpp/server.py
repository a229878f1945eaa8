"""Finds llama.cpp's server, and says how it is started and asked."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import CommandCode, LoraComposeError

PROGRAM: Final = "llama-server"
ROUND: Final = 256
"""llama.cpp rounds the tokens of a sequence up to a multiple of this."""


def find_server(given: Path | None) -> Path:
    """The program `given`, or the one on the PATH. Raises LoraComposeError("llamacpp_unavailable")."""
    found = shutil.which(PROGRAM if given is None else given)
    if found is not None:
        return Path(found).resolve()
    where = "There is no llama-server on the PATH" if given is None else f"{given} is not a program"
    raise LoraComposeError(
        CommandCode.LLAMACPP_UNAVAILABLE,
        f"{where}, and the llamacpp arms need one. Get llama.cpp (a release of "
        "https://github.com/ggml-org/llama.cpp, or build it), and give its path with --llama-server PATH.",
    )


@dataclass(frozen=True)
class Capacity:
    """How much a server may do at once."""

    threads: int
    slots: int
    """Sequences in one batch."""
    tokens: int
    """The longest sequence, prompt and answer."""

    @property
    def context(self) -> int:
        """Tokens of all sequences."""
        return self.slots * (-(-self.tokens // ROUND) * ROUND)


def server_command(
    program: Path, port: int, base: Path, adapters: Sequence[Path], capacity: Capacity
) -> list[str]:
    """The command of a server. All adapters start at scale 0."""
    threads, slots, context = str(capacity.threads), str(capacity.slots), str(capacity.context)
    scaled = ",".join(f"{path}:0" for path in adapters)
    return [
        *(str(program), "-m", str(base), "--host", "127.0.0.1", "--port", str(port)),
        *("-t", threads, "-tb", threads, "--parallel", slots, "-c", context),
        *("--cont-batching", "--cache-ram", "0", "--no-webui"),
        *(("--lora-scaled", scaled, "--lora-init-without-apply") if adapters else ()),
    ]


def request_body(body: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Our request as llama.cpp's: its `model` is a composition of `names`, or another text for the base.

    `names` are in the order of the server's adapters. Its cheapest way to choose the likeliest token is asked
    for, and no part of an earlier prompt is used again."""
    kept = {name: body[name] for name in ("prompt", "max_tokens", "stream", "temperature")}
    options = {"stream_options": body["stream_options"]} if "stream_options" in body else {}
    greedy = {"samplers": ["top_k"], "top_k": 1, "cache_prompt": False}
    return {**kept, **options, **greedy, "lora": _scales(body["model"], names)}


def _scales(model: str, names: Sequence[str]) -> list[dict[str, float]]:
    if not model:
        return []
    weights = {member.name: member.weight for member in parse(model).members}
    return [{"id": number, "scale": weights.get(name, 0.0)} for number, name in enumerate(names)]
