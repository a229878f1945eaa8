"""Ollama's `options` as vLLM's sampling fields, and its `format` as structured outputs.

Options: https://github.com/ollama/ollama/blob/main/docs/modelfile.mdx#valid-parameters-and-values. An option
without a value has the default of the base model, not that of Ollama.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from lora_compose.adapters.errors import Code, InvalidRequest
from lora_compose.server.http.body import Body, Text
from lora_compose.server.translations.refusals import refuse_unsupported, unsupported


class OllamaOptions(Body):
    """How to generate. The second half are hints for loading a model, which are ignored."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    """A negative seed is random."""
    num_predict: int | None = None
    """0 and negative numbers: as many tokens as fit into the context."""
    stop: list[Text] | Text | None = None
    repeat_penalty: float | None = None
    repeat_last_n: int | None = None
    """Only -1: penalties look at the whole text."""
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    typical_p: float | None = None
    """Only 1."""
    tfs_z: float | None = None
    """Only 1."""
    mirostat: int | None = None
    """Only 0."""
    mirostat_tau: float | None = None
    mirostat_eta: float | None = None
    penalize_newline: bool | None = None
    """Only true."""

    num_ctx: int | None = Field(
        default=None, description="Ignored. The context has the length of the base model."
    )
    num_keep: int | None = None
    num_batch: int | None = None
    num_gpu: int | None = None
    main_gpu: int | None = None
    num_thread: int | None = None
    numa: bool | None = None
    low_vram: bool | None = None
    f16_kv: bool | None = None
    logits_all: bool | None = None
    vocab_only: bool | None = None
    use_mmap: bool | None = None
    use_mlock: bool | None = None
    embedding_only: bool | None = None


HARMLESS = {"typical_p": (1,), "tfs_z": (1,), "mirostat": (0,), "penalize_newline": (True,)}
SAME_IN_VLLM = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "stop": "stop",
    "repeat_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
}
PENALTIES = {"repeat_penalty": 1, "presence_penalty": 0, "frequency_penalty": 0}
"""The value of each penalty that changes nothing."""


def sampling(options: OllamaOptions, max_model_len: int) -> dict[str, Any]:
    """vLLM's fields. Raises InvalidRequest for an option whose meaning vLLM cannot keep."""
    refuse_unsupported(dict(options), HARMLESS, "options.")
    penalized = any(getattr(options, name) not in (None, neutral) for name, neutral in PENALTIES.items())
    if penalized and options.repeat_last_n not in (None, -1):
        raise unsupported(
            "options.repeat_last_n", "Penalties look at the whole text. Send -1 or leave it out."
        )
    found = {
        theirs: value
        for ours, theirs in SAME_IN_VLLM.items()
        if (value := getattr(options, ours)) is not None
    }
    if options.seed is not None and options.seed >= 0:
        found["seed"] = options.seed
    predict = options.num_predict
    return found | {"max_tokens": predict if predict is not None and predict > 0 else max_model_len}


def structure(format_: str | Mapping[str, Any] | None) -> dict[str, Any]:
    """vLLM's field for Ollama's `format`: nothing, "json", or a JSON schema."""
    if format_ is None or format_ == "":
        return {}
    if format_ == "json":
        return {"structured_outputs": {"json_object": True}}
    if isinstance(format_, str):
        raise InvalidRequest(Code.INVALID_REQUEST, 'format must be "json" or a JSON schema.', "format")
    return {"structured_outputs": {"json": dict(format_)}}
