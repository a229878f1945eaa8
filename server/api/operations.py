"""The table of operations: what each route reads and answers, by method and path. A test compares it with the
routes."""

from dataclasses import dataclass, field
from typing import Any

from lora_compose.adapters.errors import Code
from lora_compose.server.api import requests, responses
from lora_compose.server.api.error_codes import (
    ADMITTED,
    AUTH_ERRORS,
    BODY,
    BUILT,
    COMPOSED,
    NAMED,
    VLLM,
    WITHOUT_ENGINE,
)
from lora_compose.server.benchmarks.plan import BenchmarkFields
from lora_compose.server.compositions.from_request import ComposedModel
from lora_compose.server.paths import GENERATING, NAMING

JSON, TEXT, HTML, STREAM = "application/json", "text/plain", "text/html", "text/event-stream"
FORM = "multipart/form-data"


@dataclass(frozen=True)
class Answer:
    """A successful response. `shape` is a type or a JSON schema; None for a response without a body."""

    shape: Any = None
    media: str = JSON
    streams: bool = False
    """Whether it may also come as server-sent events."""


NO_PATH = frozenset({Code.NOT_FOUND})
"""A name with a slash or a line break is another path."""


@dataclass(frozen=True)
class Operation:
    """`answers` are the successful responses by status. The error statuses follow from `codes`."""

    answers: dict[int, Answer]
    codes: frozenset[Code]
    body: Any = None
    upload: Any = None
    """The type of the body as multipart/form-data, if the route also reads that."""
    flag: str | None = None
    """The only query parameter of the route. It is true or false."""
    examples: tuple[dict[str, Any], ...] = ()
    summary: str = ""
    """The summary of a route without a docstring."""
    answer_headers: dict[str, str] = field(default_factory=dict)


def _answers(shape: Any, *statuses: int) -> dict[int, Answer]:
    return {status: Answer(shape) for status in statuses or (200,)}


NO_CONTENT = {204: Answer()}
SUCCESS = {200: Answer({"type": "string"}, TEXT)}
OFFER = {"name": "sql", "path": "/srv/adapters/sql"}
STACK = {"adapters": [{"name": "sql", "weight": 0.7}, {"name": "polite"}]}
TIES = {**STACK, "composition": {"method": "ties", "density": 0.3, "rank": 16}}
LLAMA = {"lora": [{"id": "sql", "scale": 0.5}]}
LORAX = {"merged_adapters": {"ids": ["sql", "polite"], "weights": [1, 0.5], "merge_strategy": "linear"}}
CHAT = {"messages": [{"role": "user", "content": "roll table"}], "max_tokens": 8}
PROMPT = {"prompt": "roll table", "max_tokens": 8}
GENERATING_DOCS: dict[str, tuple[str, tuple[dict[str, Any], ...]]] = {
    "/v1/chat/completions": ("Answer a chat.", (CHAT | {"model": "sql:0.7+polite"}, CHAT | STACK)),
    "/v1/completions": ("Continue a prompt.", (PROMPT | {"model": "sql@2"}, PROMPT | TIES, PROMPT | LORAX)),
    "/v1/responses": (
        "Answer in the shape of OpenAI's Responses API.",
        ({"input": "roll table", "model": "sql"},),
    ),
    "/tokenize": ("Convert a text to tokens.", ({"prompt": "roll table", "model": "sql"},)),
    "/detokenize": ("Convert tokens to a text.", ({"tokens": [1, 2, 3], "model": "sql"},)),
}
READS_COMPOSITION = AUTH_ERRORS | BODY | COMPOSED
BENCHMARK = AUTH_ERRORS | {Code.BENCHMARK_NOT_FOUND}

OPERATIONS: dict[tuple[str, str], Operation] = {
    **{
        ("POST", path): Operation(
            {200: Answer(path, streams=path in GENERATING)},
            READS_COMPOSITION | VLLM | (BUILT if path in GENERATING else frozenset()),
            body=path,
            summary=GENERATING_DOCS[path][0],
            examples=GENERATING_DOCS[path][1],
            answer_headers={"x-lora-composition": "The canonical name of the composition that answered."},
        )
        for path in (*GENERATING, *NAMING)
    },
    ("GET", "/v1/models"): Operation(_answers(responses.ModelList), AUTH_ERRORS),
    ("GET", "/v1/models/{id}"): Operation(
        _answers(responses.ModelCard), AUTH_ERRORS | NO_PATH | {Code.MODEL_NOT_FOUND}
    ),
    ("POST", "/v1/adapters"): Operation(
        _answers(responses.AdapterObject, 200, 201),
        AUTH_ERRORS
        | BODY
        | ADMITTED
        | {
            Code.UNKNOWN_FIELD,
            Code.INVALID_REQUEST,
            Code.INVALID_SOURCE,
            Code.SOURCE_NOT_ALLOWED,
            Code.INVALID_UPLOAD,
            Code.DIGEST_MISMATCH,
            Code.INVALID_LINEAGE,
            Code.INVALID_TTL,
        },
        body=requests.AdapterOffer,
        upload=requests.AdapterUpload,
        examples=(OFFER, {"name": "sql", "hf": "org/sql-lora@main", "alias": "prod"}),
    ),
    ("GET", "/v1/adapters"): Operation(_answers(responses.AdapterList), AUTH_ERRORS),
    ("GET", "/v1/adapters/{reference}"): Operation(
        _answers(responses.AdapterObject), AUTH_ERRORS | NO_PATH | NAMED
    ),
    ("DELETE", "/v1/adapters/{reference}"): Operation(
        NO_CONTENT,
        AUTH_ERRORS | NO_PATH | NAMED | {Code.IN_USE, Code.UNKNOWN_FIELD, Code.INVALID_REQUEST},
        flag="cascade",
    ),
    ("PUT", "/v1/adapters/{name}/aliases/{alias}"): Operation(
        _answers(responses.AdapterObject),
        AUTH_ERRORS | NO_PATH | BODY | NAMED | {Code.INVALID_VERSION, Code.UNKNOWN_FIELD},
        body=requests.AliasTarget,
        examples=({"version": 2},),
    ),
    ("DELETE", "/v1/adapters/{name}/aliases/{alias}"): Operation(
        NO_CONTENT, AUTH_ERRORS | NO_PATH | NAMED | {Code.ALIAS_NOT_FOUND, Code.IN_USE}
    ),
    ("PUT", "/v1/adapters/{reference}/pin"): Operation(
        _answers(responses.PinObject), AUTH_ERRORS | NO_PATH | NAMED | BUILT | {Code.PINS_EXHAUSTED}
    ),
    ("DELETE", "/v1/adapters/{reference}/pin"): Operation(NO_CONTENT, AUTH_ERRORS | NO_PATH | NAMED),
    ("POST", "/v1/compositions"): Operation(
        {200: Answer(responses.PredictedComposition), 201: Answer(responses.CompositionObject)},
        READS_COMPOSITION
        | BUILT
        | {Code.INVALID_REQUEST, Code.NAME_NOT_ALLOWED, Code.NAME_RESERVED, Code.NAME_TAKEN},
        body=requests.NamedComposition,
        flag="dry_run",
        examples=({"name": "duo", "model": "sql:0.7+polite"}, {"name": "duo", **TIES}),
    ),
    ("GET", "/v1/compositions"): Operation(_answers(responses.CompositionList), AUTH_ERRORS),
    ("GET", "/v1/compositions/{name}"): Operation(
        _answers(responses.CompositionObject), AUTH_ERRORS | NO_PATH | {Code.COMPOSITION_NOT_FOUND}
    ),
    ("DELETE", "/v1/compositions/{name}"): Operation(
        NO_CONTENT,
        AUTH_ERRORS | NO_PATH | {Code.INVALID_NAME, Code.NAME_NOT_ALLOWED, Code.COMPOSITION_NOT_FOUND},
    ),
    ("POST", "/v1/load_lora_adapter"): Operation(
        SUCCESS,
        AUTH_ERRORS | BODY | ADMITTED | {Code.INVALID_SOURCE, Code.INVALID_REQUEST, Code.INVALID_TTL},
        body=requests.LoadAdapter,
        examples=({"lora_name": "sql", "lora_path": "/srv/adapters/sql"},),
    ),
    ("POST", "/v1/unload_lora_adapter"): Operation(
        SUCCESS,
        AUTH_ERRORS | BODY | NAMED | {Code.IN_USE},
        body=requests.UnloadAdapter,
        examples=({"lora_name": "sql@1"},),
    ),
    ("GET", "/v1/residency"): Operation(_answers(responses.ResidencyObject), AUTH_ERRORS),
    ("GET", "/v1/fusion"): Operation(_answers(responses.FusionObject), AUTH_ERRORS),
    ("PUT", "/v1/fusion"): Operation(
        _answers(responses.FusionObject),
        READS_COMPOSITION | BUILT | {Code.NOT_FUSABLE, Code.FUSION_BUSY},
        body=ComposedModel,
        examples=({"model": "sql:0.7+polite"}, LLAMA),
    ),
    ("DELETE", "/v1/fusion"): Operation(
        _answers(responses.FusionObject),
        AUTH_ERRORS | {Code.FUSION_BUSY, Code.BASE_LOST, Code.COMPOSITION_UNAVAILABLE},
    ),
    ("POST", "/v1/benchmarks"): Operation(
        _answers(responses.BenchmarkObject, 201),
        AUTH_ERRORS
        | BODY
        | NAMED
        | {
            Code.WRONG_BASE,
            Code.UNKNOWN_FIELD,
            Code.INVALID_REQUEST,
            Code.OUT_OF_RANGE,
            Code.GIVEN_TWICE,
            Code.ARM_NOT_ALLOWED,
            Code.TOO_FEW_ADAPTERS,
            Code.BENCHMARK_RUNNING,
            Code.SERVER_BUSY,
        },
        body=BenchmarkFields,
        examples=({"arms": ["base", "single"], "concurrency": [1, 4], "requests": 16},),
    ),
    ("GET", "/v1/benchmarks"): Operation(_answers(responses.BenchmarkList), AUTH_ERRORS),
    ("GET", "/v1/benchmarks/{id}"): Operation(_answers(responses.BenchmarkObject), BENCHMARK | NO_PATH),
    ("DELETE", "/v1/benchmarks/{id}"): Operation(
        _answers(responses.BenchmarkObject), BENCHMARK | NO_PATH | {Code.BENCHMARK_NOT_RUNNING}
    ),
    ("GET", "/v1/benchmarks/{id}/report"): Operation(
        {200: Answer({"type": "string"}, HTML)},
        BENCHMARK | NO_PATH | {Code.BENCHMARK_RUNNING, Code.RESULT_NOT_FOUND},
    ),
    ("GET", "/v1/benchmarks/{id}/result"): Operation(
        _answers({"type": "object"}), BENCHMARK | NO_PATH | {Code.BENCHMARK_RUNNING, Code.RESULT_NOT_FOUND}
    ),
    ("GET", "/livez"): Operation(_answers(responses.AliveObject), frozenset()),
    ("GET", "/readyz"): Operation(
        _answers(responses.ReadyObject),
        WITHOUT_ENGINE | {Code.ENGINE_STUCK, Code.ENGINE_DEAD, Code.BASE_LOST},
    ),
    ("GET", "/health"): Operation({200: Answer()}, WITHOUT_ENGINE | {Code.ENGINE_DEAD}),
    ("GET", "/metrics"): Operation({200: Answer({"type": "string"}, TEXT)}, AUTH_ERRORS),
    ("GET", "/openapi.json"): Operation(_answers({"type": "object"}), AUTH_ERRORS),
}
