"""Every `code` an error may have over HTTP: its status, and what it means to the one who gets it.

An operation names groups of these; its statuses follow from them. A test reads the code base and holds that
no code is raised that is not here.
"""

from dataclasses import dataclass

from lora_compose.adapters.errors import Code


@dataclass(frozen=True)
class ErrorCode:
    """Stable: a client may switch on the code it is filed under."""

    status: int
    meaning: str


ERROR_CODES = {
    # 400: what was sent is not well-formed
    Code.INVALID_REQUEST: ErrorCode(
        400, "A field, parameter or header has a value it may not have; see `param`."
    ),
    Code.INVALID_JSON: ErrorCode(400, "The body is not a JSON object."),
    Code.UNKNOWN_FIELD: ErrorCode(400, "There is no such field or parameter here."),
    Code.CONFLICTING_FIELDS: ErrorCode(400, "The request names adapters in two ways at once."),
    Code.INVALID_MODEL: ErrorCode(400, "`model` is not a string, or empty."),
    Code.INVALID_NAME: ErrorCode(400, "Not a name an adapter, alias or composition can have."),
    Code.INVALID_COMPOSITION: ErrorCode(400, "A composition that is empty, too long or not well-formed."),
    Code.DUPLICATE_MEMBER: ErrorCode(400, "A composition names one adapter twice."),
    Code.INVALID_WEIGHT: ErrorCode(400, "A weight that is no finite number, or too large for the adapter."),
    Code.UNKNOWN_METHOD: ErrorCode(400, "There is no such way to combine adapters."),
    Code.MISSING_DENSITY: ErrorCode(400, "The method needs a density."),
    Code.INVALID_DENSITY: ErrorCode(400, "A density that is none, or that the method does not take."),
    Code.INVALID_RANK: ErrorCode(400, "A rank that is none, or that the method does not take."),
    Code.INVALID_SEED: ErrorCode(400, "A seed that is none, or that the method does not take."),
    Code.INVALID_MAJORITY_SIGN_METHOD: ErrorCode(
        400, "Neither total nor frequency, or the method takes none."
    ),
    Code.INVALID_SOURCE: ErrorCode(400, "Not exactly one of the places an adapter can come from."),
    Code.SOURCE_NOT_ALLOWED: ErrorCode(400, "This server takes no adapters from the Hub."),
    Code.INVALID_UPLOAD: ErrorCode(400, "Not an upload of the two files of an adapter."),
    Code.DIGEST_MISMATCH: ErrorCode(400, "The files did not arrive as they were sent."),
    Code.INVALID_LINEAGE: ErrorCode(400, "`lineage` is no JSON object, too large or too deep."),
    Code.INVALID_VERSION: ErrorCode(400, "Not a version number."),
    Code.OUT_OF_RANGE: ErrorCode(400, "A number or list beyond the bounds that the message names."),
    Code.GIVEN_TWICE: ErrorCode(400, "A list that names something twice."),
    Code.ARM_NOT_ALLOWED: ErrorCode(400, "A benchmark arm that cannot be run over HTTP."),
    Code.TOO_FEW_ADAPTERS: ErrorCode(400, "A benchmark arm needs more adapters than there are."),
    # 401, 403: who may
    Code.INVALID_API_KEY: ErrorCode(401, "No key, or one that is good no more."),
    Code.PERMISSION_DENIED: ErrorCode(403, "The key's role does not allow this."),
    Code.NAME_NOT_ALLOWED: ErrorCode(403, "The key may not use this name."),
    Code.PATH_NOT_ALLOWED: ErrorCode(403, "The path is in no directory adapters may come from."),
    # 404: what is not there, or not for this key
    Code.NOT_FOUND: ErrorCode(404, "There is no such path, or not on this port."),
    Code.MODEL_NOT_FOUND: ErrorCode(404, "No such adapter, version, alias or composition."),
    Code.ADAPTER_NOT_FOUND: ErrorCode(404, "There is no adapter at the path or on the Hub."),
    Code.ALIAS_NOT_FOUND: ErrorCode(404, "The adapter has no such alias."),
    Code.COMPOSITION_NOT_FOUND: ErrorCode(404, "There is no such saved composition."),
    Code.BENCHMARK_NOT_FOUND: ErrorCode(404, "There is no such benchmark."),
    Code.RESULT_NOT_FOUND: ErrorCode(404, "The benchmark ended without it."),
    Code.METHOD_NOT_ALLOWED: ErrorCode(405, "The path does not take this method."),
    # 409: not now, with things as they are
    Code.NAME_RESERVED: ErrorCode(409, "The name is the base's, a method's or another thing's."),
    Code.NAME_TAKEN: ErrorCode(409, "A composition of that name says something else."),
    Code.IN_USE: ErrorCode(409, "A saved composition needs it."),
    Code.PINS_EXHAUSTED: ErrorCode(409, "Pinning it would leave no room in host memory for others."),
    Code.FUSION_BUSY: ErrorCode(409, "The base is being switched."),
    Code.BENCHMARK_RUNNING: ErrorCode(409, "A benchmark is running."),
    Code.BENCHMARK_NOT_RUNNING: ErrorCode(409, "The benchmark has ended already."),
    Code.REQUEST_TOO_LARGE: ErrorCode(413, "The body is larger than this server reads."),
    Code.UNSUPPORTED_MEDIA_TYPE: ErrorCode(415, "The body has another content type or encoding."),
    # 422: well-formed, and cannot be served
    Code.MISSING_CONFIG: ErrorCode(422, "There is no adapter_config.json."),
    Code.MISSING_WEIGHTS: ErrorCode(422, "There is no adapter_model.safetensors."),
    Code.NOT_A_REGULAR_FILE: ErrorCode(422, "A link, pipe or device in place of a file."),
    Code.BAD_ADAPTER_CONFIG: ErrorCode(422, "adapter_config.json cannot be read."),
    Code.BAD_RANK: ErrorCode(422, "A rank in the config that is none."),
    Code.BAD_ALPHA: ErrorCode(422, "A lora_alpha in the config that is none."),
    Code.RANK_MISMATCH: ErrorCode(422, "Tensors of another rank than the config says."),
    Code.RANK_TOO_LARGE: ErrorCode(422, "More rank than the server's max_lora_rank; merge at a lower one."),
    Code.UNSUPPORTED_FEATURE: ErrorCode(422, "The adapter uses something that cannot be served."),
    Code.CORRUPT_WEIGHTS: ErrorCode(422, "The weights' file is broken or incomplete."),
    Code.WEIGHTS_TOO_LARGE: ErrorCode(422, "The weights' file is larger than is accepted."),
    Code.NON_FINITE_WEIGHTS: ErrorCode(422, "Weights that are NaN or infinite, or would be once scaled."),
    Code.WRONG_BASE: ErrorCode(422, "The adapter was made for another base."),
    Code.UNKNOWN_LAYER: ErrorCode(422, "Tensors for a layer that the base does not have."),
    Code.UNKNOWN_MODULE: ErrorCode(422, "Tensors for a module that the base does not have."),
    Code.PICKLE_REFUSED: ErrorCode(422, "The weights are a pickle; it was not opened."),
    Code.NOT_FUSABLE: ErrorCode(422, "The composition cannot be folded into this base."),
    Code.TOO_MANY_MEMBERS: ErrorCode(422, "More adapters at once than host memory has room for."),
    # 429, 5xx: a client may try again
    Code.QUOTA_EXCEEDED: ErrorCode(429, "The key has used up a quota; `param` names it."),
    Code.INTERNAL_ERROR: ErrorCode(
        500, "A bug of ours. The server's log has the reason, with this request id."
    ),
    Code.NOT_IMPLEMENTED: ErrorCode(501, "The base or this build of vLLM cannot do that."),
    Code.OVERLOADED: ErrorCode(503, "Too much is waiting."),
    Code.SERVER_BUSY: ErrorCode(503, "Too many requests are in flight to begin a benchmark."),
    Code.STORAGE_UNAVAILABLE: ErrorCode(503, "The registry's disk or database does not answer."),
    Code.ADAPTER_FILES_MISSING: ErrorCode(503, "The adapter's files are gone from the store."),
    Code.COMPOSITION_UNAVAILABLE: ErrorCode(503, "The engine could not prepare it."),
    Code.ENGINE_UNAVAILABLE: ErrorCode(503, "The engine died and is being started again."),
    Code.ENGINE_STUCK: ErrorCode(503, "The engine gives no sign of life."),
    Code.ENGINE_DEAD: ErrorCode(503, "The engine is not running."),
    Code.BASE_LOST: ErrorCode(503, "The base's weights could not be restored: restart the server."),
}

WITHOUT_ENGINE = frozenset({Code.ENGINE_UNAVAILABLE, Code.INTERNAL_ERROR})
AUTH_ERRORS = WITHOUT_ENGINE | {
    Code.INVALID_API_KEY,
    Code.PERMISSION_DENIED,
    Code.QUOTA_EXCEEDED,
    Code.STORAGE_UNAVAILABLE,
}
BODY = frozenset({Code.INVALID_JSON, Code.REQUEST_TOO_LARGE, Code.UNSUPPORTED_MEDIA_TYPE})
NAMED = frozenset({Code.INVALID_NAME, Code.MODEL_NOT_FOUND, Code.ADAPTER_FILES_MISSING})
COMPOSED = NAMED | {
    Code.INVALID_MODEL,
    Code.CONFLICTING_FIELDS,
    Code.UNKNOWN_FIELD,
    Code.INVALID_COMPOSITION,
    Code.DUPLICATE_MEMBER,
    Code.INVALID_WEIGHT,
    Code.UNKNOWN_METHOD,
    Code.MISSING_DENSITY,
    Code.INVALID_DENSITY,
    Code.INVALID_RANK,
    Code.INVALID_SEED,
    Code.INVALID_MAJORITY_SIGN_METHOD,
    Code.RANK_TOO_LARGE,
}
MERGED = frozenset({
    Code.WRONG_BASE,
    Code.NON_FINITE_WEIGHTS,
    Code.CORRUPT_WEIGHTS,
    Code.MISSING_WEIGHTS,
    Code.MISSING_CONFIG,
})
BUILT = MERGED | {Code.COMPOSITION_UNAVAILABLE, Code.TOO_MANY_MEMBERS, Code.BASE_LOST}
VLLM = frozenset({
    Code.INVALID_REQUEST,
    Code.MODEL_NOT_FOUND,
    Code.NOT_FOUND,
    Code.NOT_IMPLEMENTED,
    Code.OVERLOADED,
})
ADMITTED = frozenset({
    Code.INVALID_NAME,
    Code.NAME_NOT_ALLOWED,
    Code.NAME_RESERVED,
    Code.PATH_NOT_ALLOWED,
    Code.ADAPTER_NOT_FOUND,
    Code.COMPOSITION_UNAVAILABLE,
    Code.ADAPTER_FILES_MISSING,
    *(code for code, about in ERROR_CODES.items() if about.status == 422),
}) - {Code.NOT_FUSABLE, Code.TOO_MANY_MEMBERS}
