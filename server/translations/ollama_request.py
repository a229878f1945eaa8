"""Ollama's `/api/chat` and `/api/generate` as requests for vLLM.

Fields: https://github.com/ollama/ollama/blob/main/docs/api.md. As in Ollama, a request without a prompt or
without messages only loads the model. For this, vLLM gets the smallest request there is, one of `/tokenize`.
"""

from typing import Any, ClassVar

from pydantic import Field

from lora_compose.adapters.errors import Code, InvalidRequest
from lora_compose.adapters.validation import ANY, Fault, Faults
from lora_compose.server.compositions.from_request import EXTENSIONS, ComposedModel, CompositionFields
from lora_compose.server.generation.translation import Model, Reply, Translated, Translation
from lora_compose.server.http.body import Text
from lora_compose.server.translations.ollama_messages import OllamaMessage, messages_for_vllm
from lora_compose.server.translations.ollama_options import OllamaOptions, sampling, structure
from lora_compose.server.translations.ollama_reply import ChatReply, GenerateReply, LoadReply
from lora_compose.server.translations.refusals import refuse_unsupported, unsupported

CHAT, COMPLETIONS, TOKENIZE = "/v1/chat/completions", "/v1/completions", "/tokenize"
LATEST = ":latest"
"""The tag that Ollama's clients add to a name without one."""


class OllamaRequest(ComposedModel):
    """The fields that both routes have. `model` may end in `:latest`."""

    stream: bool | None = None
    """True by default."""
    options: OllamaOptions | None = None
    format: Text | dict[str, Any] | None = None
    """`json` or a JSON schema."""
    keep_alive: float | Text | None = None
    """Ignored: the server decides how long an adapter stays in memory."""
    think: bool | Text | None = None
    """Only false, if the server runs without --reasoning-parser."""
    logprobs: bool | None = None
    top_logprobs: int | None = None
    truncate: bool | None = Field(default=None, description="Ignored. A prompt that is too long is refused.")
    shift: bool | None = Field(default=None, description="Ignored. An answer ends where the context ends.")

    FAULTS: ClassVar[Faults] = {
        **CompositionFields.FAULTS,
        ("messages", ANY): Fault(Code.INVALID_REQUEST, "messages must be a list."),
        ("options", ANY): Fault(Code.INVALID_REQUEST, "options must be a JSON object."),
    }


class OllamaChat(OllamaRequest):
    """A chat. Without messages, the model is only loaded."""

    messages: list[OllamaMessage] | None = None
    tools: list[dict[str, Any]] | None = None
    """Refused if the server runs without --tool-call-parser."""


class OllamaGenerate(OllamaRequest):
    """A prompt, to which the chat template is applied unless `raw` is true."""

    prompt: Text = ""
    system: Text | None = None
    raw: bool | None = None
    suffix: Text | None = Field(default=None, description="Not supported.")
    template: Text | None = Field(default=None, description="Not supported.")
    context: list[int] | None = Field(default=None, description="Not supported. Use /api/chat.")
    images: list[Any] | None = Field(default=None, description="Not supported.")
    width: int | None = Field(default=None, description="Not supported.")
    height: int | None = Field(default=None, description="Not supported.")
    steps: int | None = Field(default=None, description="Not supported.")


HARMLESS: dict[str, tuple[object, ...]] = {
    "suffix": ("",),
    "template": ("",),
    "context": ([],),
    "images": ([],),
    "width": (0,),
    "height": (0,),
    "steps": (0,),
}


def _chat(body: dict[str, Any], model: Model) -> Translated:
    fields = OllamaChat.read(_without_latest(body))
    if not fields.messages:
        return _load(body, {"message": {"role": "assistant", "content": ""}})
    if fields.tools and not model.parses_tools:
        raise unsupported("tools", "Start it with --enable-auto-tool-choice and --tool-call-parser for that.")
    tools = {"tools": fields.tools} if fields.tools else {}
    request = {"messages": messages_for_vllm(fields.messages), **tools, **_for_chat(fields, model)}
    return _generating(CHAT, body, request, fields, model, ChatReply())


def _generate(body: dict[str, Any], model: Model) -> Translated:
    fields = OllamaGenerate.read(_without_latest(body))
    refuse_unsupported(dict(fields), HARMLESS)
    if not fields.prompt:
        return _load(body, {"response": ""})
    if fields.raw:
        refused = {"system": ("",), "logprobs": (False,), "think": (False,)}
        refuse_unsupported(dict(fields), refused)
        return _generating(COMPLETIONS, body, {"prompt": fields.prompt}, fields, model, GenerateReply())
    system = [{"role": "system", "content": fields.system}] if fields.system else []
    messages = [*system, {"role": "user", "content": fields.prompt}]
    request = {"messages": messages, **_for_chat(fields, model)}
    return _generating(CHAT, body, request, fields, model, GenerateReply())


def _generating(
    path: str,
    body: dict[str, Any],
    request: dict[str, Any],
    fields: OllamaRequest,
    model: Model,
    reply: Reply,
) -> Translated:
    stream = fields.stream is not False
    streaming = {"stream": True, "stream_options": {"include_usage": True}} if stream else {"stream": False}
    return Translated(
        path,
        {
            **_composition(body),
            **request,
            **sampling(fields.options or OllamaOptions(), model.max_model_len),
            **structure(fields.format),
            **streaming,
        },
        reply,
    )


def _load(body: dict[str, Any], empty: dict[str, Any]) -> Translated:
    named = _composition(body)
    return Translated(TOKENIZE, {**named, "prompt": ""}, LoadReply(named.get("model", ""), empty))


def _for_chat(fields: OllamaRequest, model: Model) -> dict[str, Any]:
    """vLLM's fields for thinking and for log probabilities."""
    request: dict[str, Any] = {}
    if fields.think is not None:
        request |= _thinking(fields.think, model)
    if fields.logprobs:
        request |= {"logprobs": True, "top_logprobs": fields.top_logprobs or 0}
    return request


def _thinking(think: bool | str, model: Model) -> dict[str, Any]:
    if isinstance(think, str) and think not in ("low", "medium", "high"):
        raise InvalidRequest(
            Code.INVALID_REQUEST, 'think must be true, false, "low", "medium" or "high".', "think"
        )
    if think and not model.parses_reasoning:
        raise unsupported("think", "Start it with --reasoning-parser for that.")
    effort = {"reasoning_effort": think} if isinstance(think, str) else {}
    return {**effort, "chat_template_kwargs": {"enable_thinking": bool(think)}}


def _composition(body: dict[str, Any]) -> dict[str, Any]:
    """The fields that name the model or adapters. Raises InvalidRequest("invalid_model") without any."""
    every = _without_latest(body)
    named = {field: every[field] for field in ("model", *EXTENSIONS) if every.get(field) is not None}
    if not named:
        raise InvalidRequest(Code.INVALID_MODEL, "model is missing. GET /api/tags lists the models.", "model")
    return named


def _without_latest(body: dict[str, Any]) -> dict[str, Any]:
    model = body.get("model")
    return {**body, "model": without_tag(model)} if isinstance(model, str) else body


def without_tag(model: str) -> str:
    """The name as this server knows it. Ollama's `NAME:latest` is NAME."""
    return model.removesuffix(LATEST)


OLLAMA = {
    "/api/chat": Translation(_chat, takes_forms=True),
    "/api/generate": Translation(_generate, takes_forms=True),
}
"""Ollama's routes that generate."""
