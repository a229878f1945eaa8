"""The table of operations: what each route reads and answers, by method and path. A test compares it with the
routes."""

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
from lora_compose.server.api.operation import HTML, NO_PATH, TEXT, Answer, Operation, answers
from lora_compose.server.api.translated_operations import TRANSLATED_OPERATIONS
from lora_compose.server.benchmarks.plan import BenchmarkFields
from lora_compose.server.compositions.from_request import ComposedModel
from lora_compose.server.paths import COMPOSING, GENERATING, NAMING, RESPONSES, is_anthropic

NO_CONTENT = {204: Answer()}
SUCCESS = {200: Answer({"type": "string"}, TEXT)}
OFFER = {"name": "sql", "path": "/srv/adapters/sql"}
STACK = {"adapters": [{"name": "sql", "weight": 0.7}, {"name": "polite"}]}
TIES = {**STACK, "composition": {"method": "ties", "density": 0.3, "rank": 16}}
LLAMA = {"lora": [{"id": "sql", "scale": 0.5}]}
LORAX = {"merged_adapters": {"ids": ["sql", "polite"], "weights": [1, 0.5], "merge_strategy": "linear"}}
CHAT = {"messages": [{"role": "user", "content": "roll table"}], "max_tokens": 8}
PAIRS = {"queries": "roll table", "documents": ["a table", "a chair"], "model": "sql"}
RANKED = {"query": "roll table", "documents": ["a table", "a chair"], "model": "sql"}
PROMPT = {"prompt": "roll table", "max_tokens": 8}
GENERATING_DOCS: dict[str, tuple[str, tuple[dict[str, Any], ...]]] = {
    "/v1/chat/completions": ("Answer a chat.", (CHAT | {"model": "sql:0.7+polite"}, CHAT | STACK)),
    "/v1/completions": ("Continue a prompt.", (PROMPT | {"model": "sql@2"}, PROMPT | TIES, PROMPT | LORAX)),
    "/v1/responses": (
        "Answer in the shape of OpenAI's Responses API.",
        ({"input": "roll table", "model": "sql"},),
    ),
    "/v1/messages": ("Answer a chat in the shape of Anthropic's Messages API.", (CHAT | {"model": "sql"},)),
    "/v1/messages/count_tokens": (
        "Count the tokens of a chat, in the shape of Anthropic's Messages API.",
        ({"messages": CHAT["messages"], "model": "sql"},),
    ),
    "/v1/embeddings": ("Convert texts to embeddings.", ({"input": ["roll table"], "model": "sql"},)),
    "/v2/embed": ("Embed texts in the shape of Cohere's API.", ({"texts": ["roll table"], "model": "sql"},)),
    "/pooling": (
        "Show the pooled outputs for texts.",
        ({"input": "roll table", "model": "sql"},),
    ),
    "/classify": ("Sort texts into classes.", ({"input": "roll table", "model": "sql"},)),
    "/score": ("Compute the scores of pairs of texts.", (PAIRS,)),
    "/v1/score": ("Compute the scores of pairs, as `/score`.", (PAIRS,)),
    "/rerank": ("Order documents by their score with a query.", (RANKED,)),
    "/v1/rerank": ("Order documents by their score with a query, as `/rerank`.", (RANKED,)),
    "/v2/rerank": ("Order documents by their score with a query, as `/rerank`.", (RANKED,)),
    "/tokenize": ("Convert a text to tokens.", ({"prompt": "roll table", "model": "sql"},)),
    "/detokenize": ("Convert tokens to a text.", ({"tokens": [1, 2, 3], "model": "sql"},)),
}
READS_COMPOSITION = AUTH_ERRORS | BODY | COMPOSED
STORED_RESPONSE = AUTH_ERRORS | NO_PATH | {Code.NOT_OFFERED, Code.RESPONSE_NOT_FOUND, Code.INVALID_REQUEST}
BENCHMARK = AUTH_ERRORS | {Code.BENCHMARK_NOT_FOUND}

OPERATIONS: dict[tuple[str, str], Operation] = {
    **{
        ("POST", path): Operation(
            {200: Answer(path, streams=path in GENERATING)},
            READS_COMPOSITION | VLLM | {Code.NOT_OFFERED} | (frozenset() if path in NAMING else BUILT),
            body=path,
            summary=GENERATING_DOCS[path][0],
            examples=GENERATING_DOCS[path][1],
            error_shape="anthropic" if is_anthropic(path) else "openai",
            answer_headers={"x-lora-composition": "The canonical name of the composition that answered."},
        )
        for path in COMPOSING
    },
    ("GET", "/v1/models"): Operation(answers(responses.ModelList), AUTH_ERRORS),
    ("GET", "/v1/models/{id}"): Operation(
        answers(responses.ModelCard), AUTH_ERRORS | NO_PATH | {Code.MODEL_NOT_FOUND}
    ),
    ("POST", "/v1/adapters"): Operation(
        answers(responses.AdapterObject, 200, 201),
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
    ("GET", "/v1/adapters"): Operation(answers(responses.AdapterList), AUTH_ERRORS),
    ("GET", "/v1/adapters/{reference}"): Operation(
        answers(responses.AdapterObject), AUTH_ERRORS | NO_PATH | NAMED
    ),
    ("DELETE", "/v1/adapters/{reference}"): Operation(
        NO_CONTENT,
        AUTH_ERRORS | NO_PATH | NAMED | {Code.IN_USE, Code.UNKNOWN_FIELD, Code.INVALID_REQUEST},
        flag="cascade",
    ),
    ("PUT", "/v1/adapters/{name}/aliases/{alias}"): Operation(
        answers(responses.AdapterObject),
        AUTH_ERRORS | NO_PATH | BODY | NAMED | {Code.INVALID_VERSION, Code.UNKNOWN_FIELD},
        body=requests.AliasTarget,
        examples=({"version": 2},),
    ),
    ("DELETE", "/v1/adapters/{name}/aliases/{alias}"): Operation(
        NO_CONTENT, AUTH_ERRORS | NO_PATH | NAMED | {Code.ALIAS_NOT_FOUND, Code.IN_USE}
    ),
    ("PUT", "/v1/adapters/{reference}/pin"): Operation(
        answers(responses.PinObject), AUTH_ERRORS | NO_PATH | NAMED | BUILT | {Code.PINS_EXHAUSTED}
    ),
    ("DELETE", "/v1/adapters/{reference}/pin"): Operation(NO_CONTENT, AUTH_ERRORS | NO_PATH | NAMED),
    ("POST", "/v1/compositions"): Operation(
        {200: Answer(responses.PredictedComposition), 201: Answer(responses.SavedComposition)},
        READS_COMPOSITION
        | BUILT
        | {Code.INVALID_REQUEST, Code.NAME_NOT_ALLOWED, Code.NAME_RESERVED, Code.NAME_TAKEN},
        body=requests.NamedComposition,
        flag="dry_run",
        examples=({"name": "duo", "model": "sql:0.7+polite"}, {"name": "duo", **TIES}),
    ),
    ("GET", "/v1/compositions"): Operation(answers(responses.CompositionList), AUTH_ERRORS),
    ("GET", "/v1/compositions/{name}"): Operation(
        answers(responses.CompositionObject), AUTH_ERRORS | NO_PATH | {Code.COMPOSITION_NOT_FOUND}
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
    ("GET", "/v1/residency"): Operation(answers(responses.ResidencyObject), AUTH_ERRORS),
    ("GET", "/v1/fusion"): Operation(answers(responses.FusionObject), AUTH_ERRORS),
    ("PUT", "/v1/fusion"): Operation(
        answers(responses.FusionObject),
        READS_COMPOSITION | BUILT | {Code.NOT_FUSABLE, Code.FUSION_BUSY},
        body=ComposedModel,
        examples=({"model": "sql:0.7+polite"}, LLAMA),
    ),
    ("DELETE", "/v1/fusion"): Operation(
        answers(responses.FusionObject),
        AUTH_ERRORS | {Code.FUSION_BUSY, Code.BASE_LOST, Code.COMPOSITION_UNAVAILABLE},
    ),
    ("POST", "/v1/benchmarks"): Operation(
        answers(responses.BenchmarkObject, 201),
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
    ("GET", "/v1/benchmarks"): Operation(answers(responses.BenchmarkList), AUTH_ERRORS),
    ("GET", "/v1/benchmarks/{id}"): Operation(answers(responses.BenchmarkObject), BENCHMARK | NO_PATH),
    ("DELETE", "/v1/benchmarks/{id}"): Operation(
        answers(responses.BenchmarkObject), BENCHMARK | NO_PATH | {Code.BENCHMARK_NOT_RUNNING}
    ),
    ("GET", "/v1/benchmarks/{id}/report"): Operation(
        {200: Answer({"type": "string"}, HTML)},
        BENCHMARK | NO_PATH | {Code.BENCHMARK_RUNNING, Code.RESULT_NOT_FOUND},
    ),
    ("GET", "/v1/benchmarks/{id}/result"): Operation(
        answers({"type": "object"}), BENCHMARK | NO_PATH | {Code.BENCHMARK_RUNNING, Code.RESULT_NOT_FOUND}
    ),
    ("GET", "/livez"): Operation(answers(responses.AliveObject), frozenset()),
    ("GET", "/readyz"): Operation(
        answers(responses.ReadyObject),
        WITHOUT_ENGINE | {Code.ENGINE_STUCK, Code.ENGINE_DEAD, Code.BASE_LOST},
    ),
    ("GET", "/health"): Operation({200: Answer()}, WITHOUT_ENGINE | {Code.ENGINE_DEAD}),
    ("GET", "/ping"): Operation({200: Answer()}, WITHOUT_ENGINE | {Code.ENGINE_DEAD}),
    ("POST", "/ping"): Operation({200: Answer()}, WITHOUT_ENGINE | {Code.ENGINE_DEAD}),
    ("GET", "/version"): Operation(answers(responses.VersionObject), AUTH_ERRORS),
    ("GET", "/load"): Operation(answers(responses.LoadObject), AUTH_ERRORS),
    ("GET", "/tokenizer_info"): Operation(
        answers({"type": "object"}),
        AUTH_ERRORS | {Code.NOT_OFFERED},
        summary="Describe the tokenizer, if the server runs with --enable-tokenizer-info-endpoint.",
    ),
    ("GET", f"{RESPONSES}/{{id}}"): Operation(
        {200: Answer({"type": "object"}, streams=True)},
        STORED_RESPONSE,
        summary="Show a stored response. `?stream=true` follows its events.",
    ),
    ("POST", f"{RESPONSES}/{{id}}/cancel"): Operation(
        answers({"type": "object"}),
        STORED_RESPONSE,
        summary="End a response in the background.",
    ),
    ("GET", "/metrics"): Operation({200: Answer({"type": "string"}, TEXT)}, AUTH_ERRORS),
    ("GET", "/openapi.json"): Operation(answers({"type": "object"}), AUTH_ERRORS),
    ("GET", "/docs"): Operation({200: Answer({"type": "string"}, HTML)}, AUTH_ERRORS),
    **TRANSLATED_OPERATIONS,
}
