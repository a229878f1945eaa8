"""Requests of TGI and LoRAX (`/generate`, `/generate_stream`, `POST /`) as requests for `/v1/completions`.

Fields: https://huggingface.co/docs/text-generation-inference and https://loraexchange.ai, in their routers'
`GenerateParameters`. A field that is null counts as missing, because their clients send every field.
"""

from functools import partial
from typing import Annotated, Any, ClassVar

from annotated_types import MinLen
from pydantic import BeforeValidator, Field

from lora_compose.adapters.errors import Code, InvalidRequest
from lora_compose.adapters.validation import ANY, Fault, Faults
from lora_compose.server.compositions.foreign_fields import check_source
from lora_compose.server.compositions.from_request import (
    EXTENSIONS,
    ComposedModel,
    CompositionFields,
    two_forms,
)
from lora_compose.server.generation.translation import Model, Translated, Translation
from lora_compose.server.http.body import Body, Text
from lora_compose.server.translations.refusals import refuse_unsupported, unsupported
from lora_compose.server.translations.tgi_reply import TgiReply

COMPLETIONS = "/v1/completions"


class TgiParameters(Body):
    """How to generate, and with which adapter. A field without a value has the default of the base model."""

    adapter_id: Annotated[str, MinLen(1)] | None = None
    """Any value that `model` may have: an adapter, a composition as text, the name of a saved composition."""
    adapter_source: Text | None = None
    """Only `local`: requests can only use registered adapters."""
    api_token: Text | None = None
    """Ignored: registered adapters need no token."""
    merged_adapters: dict[str, Any] | None = None
    do_sample: bool | None = None
    """Without it, the answer is greedy unless `temperature`, `top_k` or `top_p` ask for sampling."""
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    max_new_tokens: int | None = None
    """By default, as many as fit into the context."""
    stop: list[Text] | None = None
    ignore_eos_token: bool | None = None
    truncate: int | None = None
    """Use only the last tokens of the prompt."""
    grammar: dict[str, Any] | None = None
    """`{"type": "json" | "json_schema" | "regex", "value": …}`."""
    response_format: dict[str, Any] | None = None
    """LoRAX's form: `{"type": "json_object", "schema": …}`."""
    return_full_text: bool | None = None
    details: bool | None = None
    decoder_input_details: bool | None = None
    """Also return the log probabilities of the prompt. Not in a stream."""
    best_of: int | None = None
    """Only 1."""
    typical_p: float | None = None
    """Only 1."""
    watermark: bool | None = None
    """Only false."""
    top_n_tokens: int | None = None
    """Only 0."""
    return_k_alternatives: int | None = None
    """Only 0."""
    apply_chat_template: bool | None = None
    """Only false. `/v1/chat/completions` applies the template."""


HARMLESS = {
    "best_of": (1,),
    "typical_p": (1,),
    "watermark": (False,),
    "top_n_tokens": (0,),
    "return_k_alternatives": (0,),
    "apply_chat_template": (False,),
}
SAME_IN_VLLM = (
    *("temperature", "top_k", "top_p", "seed", "repetition_penalty", "frequency_penalty"),
    *("max_new_tokens", "stop", "ignore_eos_token", "truncate"),
)
RENAMED = {
    "max_new_tokens": "max_tokens",
    "ignore_eos_token": "ignore_eos",
    "truncate": "truncate_prompt_tokens",
}


class TgiOptions(Body):
    """Hints for Hugging Face's own service. They change no answer and are ignored."""

    use_cache: bool | None = None
    wait_for_model: bool | None = None
    dont_load_model: bool | None = None


def _defaults(value: object) -> object:
    return {} if value is None else value


class TgiRequest(ComposedModel):
    """A prompt and how to continue it."""

    inputs: Annotated[Text, Field(min_length=1)]
    parameters: Annotated[TgiParameters, BeforeValidator(_defaults)] = TgiParameters()
    options: TgiOptions | None = None
    stream: bool | None = None
    """On `POST /`: whether to stream. The other two paths say it themselves."""

    FAULTS: ClassVar[Faults] = {
        **CompositionFields.FAULTS,
        ("inputs", ANY): Fault(Code.INVALID_REQUEST, "inputs must be a text that is not empty."),
        ("parameters", ANY): Fault(Code.INVALID_REQUEST, "parameters must be a JSON object."),
        ("parameters.adapter_id", ANY): Fault(
            Code.INVALID_NAME, "{param} must be the name of an adapter. Leave it out for the base."
        ),
    }


def _translate(body: dict[str, Any], model: Model, *, path: str, streams: bool | None) -> Translated:
    fields = TgiRequest.read(body)
    parameters = fields.parameters
    if streams is not None and fields.stream not in (None, streams):
        other = "/generate" if streams else "/generate_stream"
        raise InvalidRequest(Code.INVALID_REQUEST, f"{path} has no stream. Use {other} for that.", "stream")
    stream = bool(fields.stream) if streams is None else streams
    _refuse_other_meanings(parameters, stream=stream)
    prompt = fields.inputs if parameters.return_full_text else ""
    reply = TgiReply(
        special=model.special_token_ids,
        prompt=prompt,
        seed=parameters.seed,
        shows_details=bool(parameters.details or parameters.decoder_input_details),
        in_list=streams is None,
    )
    return Translated(
        COMPLETIONS,
        {
            **_composition(body, parameters),
            "prompt": fields.inputs,
            "max_tokens": model.max_model_len,
            **_sampling(parameters),
            **_structure(parameters),
            **_shown(parameters, stream=stream),
        },
        reply,
    )


def _refuse_other_meanings(parameters: TgiParameters, *, stream: bool) -> None:
    refuse_unsupported(dict(parameters), HARMLESS, "parameters.")
    check_source(parameters.adapter_source, "parameters.adapter_source")
    if stream and parameters.decoder_input_details:
        raise unsupported(
            "parameters.decoder_input_details", "A stream has no log probabilities of the prompt."
        )


def _composition(body: dict[str, Any], parameters: TgiParameters) -> dict[str, Any]:
    """The fields of `body` that name adapters, with those of `parameters` in their places."""
    named = {field: body[field] for field in ("model", *EXTENSIONS) if body.get(field) is not None}
    for field, source in (("model", "adapter_id"), ("merged_adapters", "merged_adapters")):
        value = getattr(parameters, source)
        if value is None:
            continue
        if field in named:
            raise two_forms(f"parameters.{source}", field)
        named[field] = value
    return named


def _sampling(parameters: TgiParameters) -> dict[str, Any]:
    """A request is greedy, as in TGI, if it asks for no sampling, or if its temperature is 0."""
    given = {name: value for name in SAME_IN_VLLM if (value := getattr(parameters, name)) is not None}
    sampling = {RENAMED.get(name, name): value for name, value in given.items()}
    if parameters.truncate is not None:
        sampling["truncation_side"] = "left"
    asks = (
        parameters.do_sample
        or parameters.top_k is not None
        or parameters.temperature not in (None, 1)
        or parameters.top_p not in (None, 1)
    )
    return sampling if asks else sampling | {"temperature": 0}


def _structure(parameters: TgiParameters) -> dict[str, Any]:
    """The structure that the answer must have. Raises InvalidRequest if it is not one that vLLM knows."""
    grammar, format_ = parameters.grammar, parameters.response_format
    if grammar is not None and format_ is not None:
        text = "parameters has grammar and response_format. Send only one of them."
        raise InvalidRequest(Code.CONFLICTING_FIELDS, text, "parameters.grammar")
    if grammar is not None:
        return {"structured_outputs": _grammar(grammar)}
    if format_ is None:
        return {}
    if set(format_) - {"type", "schema"} or format_.get("type") != "json_object":
        text = 'parameters.response_format must be {"type": "json_object", "schema": {...}}.'
        raise InvalidRequest(Code.INVALID_REQUEST, text, "parameters.response_format")
    schema = format_.get("schema")
    return {"structured_outputs": {"json_object": True} if schema is None else {"json": schema}}


def _grammar(grammar: dict[str, Any]) -> dict[str, Any]:
    kind, value = grammar.get("type"), grammar.get("value")
    if set(grammar) == {"type", "value"} and value:
        if kind == "regex" and isinstance(value, str):
            return {"regex": value}
        if kind == "json" and isinstance(value, str | dict):
            return {"json": value}
        if kind == "json_schema" and isinstance(value, dict) and isinstance(value.get("schema"), dict):
            return {"json": value["schema"]}
    text = 'parameters.grammar must be {"type": "json" | "json_schema" | "regex", "value": ...}.'
    raise InvalidRequest(Code.INVALID_REQUEST, text, "parameters.grammar")


def _shown(parameters: TgiParameters, *, stream: bool) -> dict[str, Any]:
    """What the answer must hold for the reply. As in TGI, a stop sequence stays at the end of the text."""
    shown: dict[str, Any] = {"stream": stream, "include_stop_str_in_output": True}
    if stream or parameters.details or parameters.decoder_input_details:
        shown |= {"logprobs": 0, "return_token_ids": True}
    if parameters.decoder_input_details:
        shown["prompt_logprobs"] = 0
    return shown


TGI = {
    "/": Translation(partial(_translate, path="/", streams=None)),
    "/generate": Translation(partial(_translate, path="/generate", streams=False)),
    "/generate_stream": Translation(partial(_translate, path="/generate_stream", streams=True)),
}
"""The routes of TGI and LoRAX that generate."""
