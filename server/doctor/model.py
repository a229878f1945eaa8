"""Can this model directory be served: config, architecture, tokenizer, chat template, shapes?"""

from functools import partial
from pathlib import Path
from typing import Any

from lora_compose.adapters.errors import CommandCode, LoraComposeError
from lora_compose.adapters.strict_json import parse_object
from lora_compose.server.doctor.check import Check, Finding, fail, ok, warn
from lora_compose.server.doctor.weights import dtype, fits_memory, weights_are_whole

SECTION = "model"
DOWNLOAD = "Download it whole: `hf download ORG/MODEL --local-dir DIR`"


def checks(directory: Path) -> list[Check]:
    rows = (
        ("config", config),
        ("architecture", architecture),
        ("tokenizer", tokenizer),
        ("chat template", chat_template),
        ("weights", weights_are_whole),
        ("dtype", lambda where: dtype(read_config(where))),
        ("memory", lambda where: fits_memory(where, read_config(where))),
        ("shapes", shapes),
    )
    # Without a config there is nothing to say about the rest, and no use in saying it eight times.
    made = rows if (directory / "config.json").is_file() else rows[:1]
    return [Check(SECTION, name, partial(look, directory)) for name, look in made]


def read_config(directory: Path) -> dict[str, Any]:
    """config.json. Raises LoraComposeError("no_model") with what to do where there is none."""
    if not directory.is_dir():
        raise LoraComposeError(
            CommandCode.NO_MODEL, f"{directory} is no directory. {DOWNLOAD}, and give that directory"
        )
    file = directory / "config.json"
    if not file.is_file():
        raise LoraComposeError(
            CommandCode.NO_MODEL, f"{directory} has no config.json, so it holds no model. {DOWNLOAD}"
        )
    return parse_object(file.read_bytes(), max_depth=64)


def config(directory: Path) -> Finding:
    found = read_config(directory)
    kind = found.get("model_type")
    if not isinstance(kind, str):
        return fail("config.json has no model_type", DOWNLOAD)
    if found.get("auto_map"):
        return warn(
            f"{kind} brings its own Python code, which doctor does not run",
            "Read that code before you give `serve` --trust-remote-code",
        )
    return ok(f"{kind}, {found.get('num_hidden_layers', '?')} layers, {found.get('hidden_size', '?')} wide")


def architecture(directory: Path) -> Finding:
    from lora_compose.server.engine.frontend.inspection import generates, knows, takes_lora

    named = read_config(directory).get("architectures") or []
    if not named:
        return fail(
            "config.json names no architectures", 'Add it, such as "architectures": ["LlamaForCausalLM"]'
        )
    known = [name for name in named if knows(name)]
    if not known:
        return fail(
            f"vLLM does not know {', '.join(named)}", "Serve a model of vLLM's list of supported models"
        )
    if not generates(known[0]):
        return fail(f"{known[0]} generates no text", "Serve a causal language model")
    if not takes_lora(known[0]):
        return fail(f"vLLM applies no LoRA to {known[0]}", "Serve a model that vLLM lists as supporting LoRA")
    return ok(f"vLLM knows {known[0]} and applies LoRA to it")


def _tokenizer(directory: Path) -> Any:
    from transformers import AutoTokenizer

    read_config(directory)
    return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)


def tokenizer(directory: Path) -> Finding:
    found = _tokenizer(directory)
    size, room = len(found), read_config(directory).get("vocab_size")
    if not found("hello")["input_ids"]:
        return fail("the tokenizer makes no tokens of a word", f"Its files are another model's. {DOWNLOAD}")
    if isinstance(room, int) and size > room:
        return fail(
            f"the tokenizer has {size} tokens and the model {room}",
            "Bring the tokenizer the model was trained with",
        )
    return ok(f"{size} tokens")


def chat_template(directory: Path) -> Finding:
    found = _tokenizer(directory)
    if not found.chat_template:
        return warn(
            "there is none, so /v1/chat/completions will be refused",
            "Use /v1/completions, or give `serve` a --chat-template FILE",
        )
    text = found.apply_chat_template(
        [{"role": "user", "content": "hello"}], tokenize=False, add_generation_prompt=True
    )
    if "hello" not in text:
        return fail("the chat template leaves the user's message out", "Mend chat_template.jinja")
    return ok("it renders a user's message")


def shapes(directory: Path) -> Finding:
    """What admission holds adapters against, read as the server reads it."""
    from lora_compose.adapters.admission.base_model import BaseShapes

    read_config(directory)
    found = BaseShapes.of(directory, directory.name)
    if not found.linears:
        return fail("no linear layer of it takes an adapter", "Serve a causal language model")
    return ok(f"{len(found.linears)} linears in {len(found.layers)} layers take adapters")
