"""Checks whether a model directory can be served: config, architecture, tokenizer, chat template, shapes."""

from functools import partial
from pathlib import Path
from typing import Any

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.strict_json import parse_object
from lora_compose.server.doctor.check import Check, Finding, fail, ok, warn
from lora_compose.server.doctor.weights import chosen_for_cpu, dtype, fits_memory, weights_are_whole

SECTION = "model"
DOWNLOAD = "Download the whole model: `hf download ORG/MODEL --local-dir DIR`"


def checks(directory: Path) -> list[Check]:
    rows = (
        ("config", config),
        ("architecture", architecture),
        ("tokenizer", tokenizer),
        ("chat template", chat_template),
        ("weights", weights_are_whole),
        ("dtype", lambda path: dtype(read_config(path))),
        ("speed", chosen_for_cpu),
        ("memory", fits_memory),
        ("shapes", shapes),
    )
    # Without a config every other check would fail for the same reason.
    selected = rows if (directory / "config.json").is_file() else rows[:1]
    return [Check(SECTION, name, partial(run, directory)) for name, run in selected]


def read_config(directory: Path) -> dict[str, Any]:
    """config.json. Raises LoraComposeError("no_model"), with advice, if it is missing."""
    if not directory.is_dir():
        raise LoraComposeError(
            CommandCode.NO_MODEL, f"{directory} is not a directory. {DOWNLOAD}, and use that directory"
        )
    file = directory / "config.json"
    if not file.is_file():
        raise LoraComposeError(
            CommandCode.NO_MODEL,
            f"{directory} has no config.json, so it is not a model directory. {DOWNLOAD}",
        )
    return parse_object(file.read_bytes(), max_depth=64)


def config(directory: Path) -> Finding:
    found = read_config(directory)
    kind = found.get("model_type")
    if not isinstance(kind, str):
        return fail("config.json has no model_type", DOWNLOAD)
    if found.get("auto_map"):
        return warn(
            f"{kind} has its own Python code, which doctor does not run",
            "Read that code before you start `serve` with --trust-remote-code",
        )
    return ok(f"{kind}, {found.get('num_hidden_layers', '?')} layers, {found.get('hidden_size', '?')} wide")


def architecture(directory: Path) -> Finding:
    from lora_compose.server.engine.frontend.inspection import generates, knows, takes_lora

    named = read_config(directory).get("architectures") or []
    if not named:
        return fail(
            "config.json names no architectures",
            'Add the field, for example "architectures": ["LlamaForCausalLM"]',
        )
    known = [name for name in named if knows(name)]
    if not known:
        return fail(
            f"vLLM does not know {', '.join(named)}", "Use a model from vLLM's list of supported models"
        )
    if not generates(known[0]):
        return fail(f"{known[0]} generates no text", "Use a causal language model")
    if not takes_lora(known[0]):
        return fail(f"vLLM applies no LoRA to {known[0]}", "Use a model that supports LoRA in vLLM's list")
    return ok(f"vLLM knows {known[0]} and applies LoRA to it")


def _tokenizer(directory: Path) -> Any:
    from transformers import AutoTokenizer

    read_config(directory)
    return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)


def tokenizer(directory: Path) -> Finding:
    found = _tokenizer(directory)
    size, vocab_size = len(found), read_config(directory).get("vocab_size")
    if not found("hello")["input_ids"]:
        return fail(
            "the tokenizer makes no tokens of a word", f"Its files belong to another model. {DOWNLOAD}"
        )
    if isinstance(vocab_size, int) and size > vocab_size:
        return fail(
            f"the tokenizer has {size} tokens and the model {vocab_size}",
            "Use the tokenizer that the model was trained with",
        )
    return ok(f"{size} tokens")


def chat_template(directory: Path) -> Finding:
    found = _tokenizer(directory)
    if not found.chat_template:
        return warn(
            "there is no chat template, so /v1/chat/completions will be refused",
            "Use /v1/completions, or start `serve` with --chat-template FILE",
        )
    text = found.apply_chat_template(
        [{"role": "user", "content": "hello"}], tokenize=False, add_generation_prompt=True
    )
    if "hello" not in text:
        return fail("the chat template omits the user's message", "Correct chat_template.jinja")
    return ok("the template renders a user's message")


def shapes(directory: Path) -> Finding:
    """The shapes that admission compares adapters with, read in the same way as in the server."""
    from lora_compose.adapters.admission.base_model import BaseShapes

    read_config(directory)
    found = BaseShapes.of(directory, directory.name)
    if not found.linears:
        return fail("the model has no linear layer for an adapter", "Use a causal language model")
    return ok(f"adapters can cover {len(found.linears)} linear layers in {len(found.layers)} blocks")
