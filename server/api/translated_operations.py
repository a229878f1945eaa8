"""The operations of the routes of other servers: TGI and LoRAX, Ollama, and llama.cpp."""

from typing import Any

from lora_compose.adapters.errors import Code
from lora_compose.server.api import requests
from lora_compose.server.api import translated_responses as responses
from lora_compose.server.api.error_codes import AUTH_ERRORS, BODY, BUILT, COMPOSED, VLLM
from lora_compose.server.api.operation import TEXT, Answer, ErrorShape, Operation, answers
from lora_compose.server.translations.ollama_reply import NDJSON
from lora_compose.server.translations.ollama_request import OllamaChat, OllamaGenerate
from lora_compose.server.translations.tgi_request import TgiRequest

READS = AUTH_ERRORS | BODY | COMPOSED | VLLM | BUILT | {Code.NOT_OFFERED}
TGI_EVENTS = "`data:{...}` events, one for each token. The last one has `generated_text` or `error`."
OLLAMA_LINES = "One JSON object a line. The last one has `done: true` or `error`."
PROMPT = {"inputs": "roll table", "parameters": {"adapter_id": "sql", "max_new_tokens": 8}}
CHAT = {"model": "sql:0.7+polite", "messages": [{"role": "user", "content": "roll table"}]}


def _generates(
    body: Any, answer: Answer, shape: ErrorShape, summary: str, example: dict[str, Any]
) -> Operation:
    return Operation(
        {200: answer},
        READS | {Code.SOURCE_NOT_ALLOWED},
        body=body,
        error_shape=shape,
        summary=summary,
        examples=(example,),
        answer_headers={"x-lora-composition": "The canonical name of the composition that answered."},
    )


TGI_ANSWER = Answer(responses.TgiAnswer)
TGI_STREAM = Answer({"description": TGI_EVENTS}, "text/event-stream")
TGI_ANY = Answer({"type": "array", "items": {"type": "object"}}, streams=True, stream_form=TGI_EVENTS)
OLLAMA_ANSWER = Answer(responses.OllamaAnswer, streams=True, stream_media=NDJSON, stream_form=OLLAMA_LINES)

TRANSLATED_OPERATIONS: dict[tuple[str, str], Operation] = {
    ("POST", "/"): _generates(
        TgiRequest, TGI_ANY, "tgi", "Continue a prompt, for clients of TGI and LoRAX.", PROMPT
    ),
    ("POST", "/generate"): _generates(
        TgiRequest, TGI_ANSWER, "tgi", "Continue a prompt, in the shape of TGI and LoRAX.", PROMPT
    ),
    ("POST", "/generate_stream"): _generates(
        TgiRequest, TGI_STREAM, "tgi", "Stream what `/generate` answers.", PROMPT
    ),
    ("GET", "/info"): Operation(answers(responses.TgiInfo), AUTH_ERRORS, error_shape="tgi"),
    ("POST", "/api/chat"): _generates(
        OllamaChat, OLLAMA_ANSWER, "ollama", "Answer a chat, in the shape of Ollama.", CHAT
    ),
    ("POST", "/api/generate"): _generates(
        OllamaGenerate,
        OLLAMA_ANSWER,
        "ollama",
        "Answer a prompt, in the shape of Ollama.",
        {"model": "sql", "prompt": "roll table"},
    ),
    ("GET", "/"): Operation({200: Answer({"type": "string"}, TEXT)}, AUTH_ERRORS),
    ("POST", "/api/show"): Operation(
        answers(responses.OllamaShown),
        AUTH_ERRORS | BODY | COMPOSED,
        body=requests.OllamaShow,
        error_shape="ollama",
        examples=({"model": "sql"},),
    ),
    ("GET", "/api/tags"): Operation(answers(responses.OllamaModels), AUTH_ERRORS, error_shape="ollama"),
    ("GET", "/api/ps"): Operation(answers(responses.OllamaRunningModels), AUTH_ERRORS, error_shape="ollama"),
    ("GET", "/api/version"): Operation(answers(responses.OllamaVersion), AUTH_ERRORS, error_shape="ollama"),
    ("GET", "/lora-adapters"): Operation(
        answers({"type": "array", "items": {"type": "object"}}), AUTH_ERRORS
    ),
    ("POST", "/lora-adapters"): Operation({}, AUTH_ERRORS | {Code.NOT_OFFERED}),
}
