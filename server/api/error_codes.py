"""Every error `code` of the HTTP API, with its status and its meaning for the client.

An operation lists groups of these codes, and its statuses follow from them. A test checks that every code of
`Code` is here.
"""

from dataclasses import dataclass

from lora_compose.adapters.errors import Code


@dataclass(frozen=True)
class ErrorCode:
    """Status and meaning of one code. Codes are stable, so a client may decide by them."""

    status: int
    meaning: str


ERROR_CODES = {
    # 400: the request is not well-formed
    Code.INVALID_REQUEST: ErrorCode(
        400,
        "A field, parameter or header has a value that is not allowed. `param` names it.",
    ),
    Code.INVALID_JSON: ErrorCode(400, "The body is not a JSON object."),
    Code.UNKNOWN_FIELD: ErrorCode(
        400,
        "The request has a field or parameter that this route does not have. `param` names it.",
    ),
    Code.CONFLICTING_FIELDS: ErrorCode(
        400,
        "The request names adapters in two ways, or has `composition` without `adapters`.",
    ),
    Code.INVALID_MODEL: ErrorCode(400, "`model` is empty, or neither a string nor null."),
    Code.INVALID_NAME: ErrorCode(
        400,
        "The name is missing or is not a valid name for an adapter, alias or composition.",
    ),
    Code.INVALID_COMPOSITION: ErrorCode(400, "The composition is empty, too long or not well-formed."),
    Code.DUPLICATE_MEMBER: ErrorCode(400, "The composition names the same adapter twice."),
    Code.INVALID_WEIGHT: ErrorCode(400, "A weight is not a finite number, or is too large."),
    Code.UNKNOWN_METHOD: ErrorCode(400, "The method is not one of the supported ways to combine adapters."),
    Code.MISSING_DENSITY: ErrorCode(400, "The method needs `density`."),
    Code.INVALID_DENSITY: ErrorCode(
        400,
        "`density` is not a number in (0, 1], or is not an option of this method.",
    ),
    Code.INVALID_RANK: ErrorCode(
        400,
        "`rank` is not a whole number in the allowed range, or is not an option of this method.",
    ),
    Code.INVALID_SEED: ErrorCode(
        400,
        "`seed` is not a whole number in the allowed range, or is not an option of this method.",
    ),
    Code.INVALID_MAJORITY_SIGN_METHOD: ErrorCode(
        400,
        "`majority_sign_method` is not `total` or `frequency`, or is not an option of this method.",
    ),
    Code.INVALID_SOURCE: ErrorCode(400, "The request does not name exactly one source for the adapter."),
    Code.SOURCE_NOT_ALLOWED: ErrorCode(400, "This server does not accept adapters from the Hub."),
    Code.INVALID_UPLOAD: ErrorCode(400, "The upload is not a form with the two files of an adapter."),
    Code.DIGEST_MISMATCH: ErrorCode(400, "The files received do not have the digest that the request gives."),
    Code.INVALID_LINEAGE: ErrorCode(
        400,
        "`lineage` is not a JSON object, or is too large or nested too deeply.",
    ),
    Code.INVALID_TTL: ErrorCode(400, "`ttl_seconds` is not a whole number of seconds in the allowed range."),
    Code.INVALID_VERSION: ErrorCode(400, "`version` is not a version number."),
    Code.OUT_OF_RANGE: ErrorCode(
        400,
        "A number, or the length of a list, is outside the range that the message gives.",
    ),
    Code.GIVEN_TWICE: ErrorCode(400, "A list contains the same item twice."),
    Code.ARM_NOT_ALLOWED: ErrorCode(400, "This benchmark arm cannot be run over HTTP."),
    Code.TOO_FEW_ADAPTERS: ErrorCode(
        400,
        "A benchmark arm needs more adapters than the server or the request has.",
    ),
    # 401, 403: the key is not valid, or does not allow this
    Code.INVALID_API_KEY: ErrorCode(401, "The API key is missing, unknown or revoked."),
    Code.PERMISSION_DENIED: ErrorCode(403, "The role of the key does not allow this request."),
    Code.NAME_NOT_ALLOWED: ErrorCode(403, "The key may not use this name."),
    Code.PATH_NOT_ALLOWED: ErrorCode(
        403,
        "The path is not inside a directory from which adapters may be registered.",
    ),
    # 404, 405: it does not exist, or the key may not see it
    Code.NOT_FOUND: ErrorCode(404, "The path does not exist, or is not available on this port."),
    Code.MODEL_NOT_FOUND: ErrorCode(
        404,
        "The adapter, version, alias or composition does not exist, or the key may not see it. The message "
        "says so if the version expired or was superseded.",
    ),
    Code.ADAPTER_NOT_FOUND: ErrorCode(404, "There is no adapter at this path or on the Hub."),
    Code.ALIAS_NOT_FOUND: ErrorCode(404, "The adapter does not have this alias."),
    Code.COMPOSITION_NOT_FOUND: ErrorCode(404, "There is no saved composition with this name."),
    Code.BENCHMARK_NOT_FOUND: ErrorCode(404, "There is no benchmark with this id."),
    Code.RESULT_NOT_FOUND: ErrorCode(404, "The benchmark ended without writing this file."),
    Code.METHOD_NOT_ALLOWED: ErrorCode(405, "The path does not support this HTTP method."),
    # 409, 413, 415: the current state, or the body, does not allow it
    Code.NAME_RESERVED: ErrorCode(
        409,
        "The name belongs to the base, to a method, or to another adapter or composition.",
    ),
    Code.NAME_TAKEN: ErrorCode(409, "A different composition is already saved under this name."),
    Code.IN_USE: ErrorCode(409, "A saved composition needs this adapter, version or alias."),
    Code.PINS_EXHAUSTED: ErrorCode(
        409,
        "Pinning this adapter would leave too little host memory for other adapters.",
    ),
    Code.FUSION_BUSY: ErrorCode(409, "The base weights are being switched. Wait until the switch has ended."),
    Code.BENCHMARK_RUNNING: ErrorCode(409, "A benchmark is still running."),
    Code.BENCHMARK_NOT_RUNNING: ErrorCode(409, "The benchmark has already ended."),
    Code.REQUEST_TOO_LARGE: ErrorCode(413, "The body is larger than this server accepts."),
    Code.UNSUPPORTED_MEDIA_TYPE: ErrorCode(
        415,
        "The content type or content encoding of the body is not supported.",
    ),
    # 422: well-formed, but it cannot be served
    Code.MISSING_CONFIG: ErrorCode(422, "The adapter has no adapter_config.json."),
    Code.MISSING_WEIGHTS: ErrorCode(422, "The adapter has no adapter_model.safetensors."),
    Code.NOT_A_REGULAR_FILE: ErrorCode(422, "A file of the adapter is a link, a pipe or a device."),
    Code.BAD_ADAPTER_CONFIG: ErrorCode(422, "adapter_config.json cannot be read, or has an invalid value."),
    Code.BAD_RANK: ErrorCode(
        422,
        "`r` or `rank_pattern` in adapter_config.json is not a whole number in the allowed range.",
    ),
    Code.BAD_ALPHA: ErrorCode(
        422,
        "`lora_alpha` or `alpha_pattern` in adapter_config.json is not a number in the allowed range.",
    ),
    Code.RANK_MISMATCH: ErrorCode(422, "The rank of a tensor is not the rank in adapter_config.json."),
    Code.RANK_TOO_LARGE: ErrorCode(
        422,
        "The rank is larger than the server's --max-lora-rank. A merge at a lower rank can be served.",
    ),
    Code.UNSUPPORTED_FEATURE: ErrorCode(422, "The adapter uses a feature that this server cannot serve."),
    Code.CORRUPT_WEIGHTS: ErrorCode(422, "The weights file is damaged or incomplete."),
    Code.WEIGHTS_TOO_LARGE: ErrorCode(422, "The weights file is larger than this server accepts."),
    Code.NON_FINITE_WEIGHTS: ErrorCode(
        422,
        "A weight is NaN or infinite, or becomes infinite when it is scaled.",
    ),
    Code.WRONG_BASE: ErrorCode(
        422,
        "The adapter does not fit this base model, or its version was registered for another one. Register "
        "its files again, or start the server with --accept-base.",
    ),
    Code.UNKNOWN_LAYER: ErrorCode(422, "A tensor belongs to a layer that the base does not have."),
    Code.UNKNOWN_MODULE: ErrorCode(
        422,
        "A tensor belongs to a module that the base does not have, or that --lora-target-modules leaves out.",
    ),
    Code.PICKLE_REFUSED: ErrorCode(422, "The weights are a pickle file. The server did not open it."),
    Code.NOT_FUSABLE: ErrorCode(422, "The composition cannot be fused into this base."),
    Code.TOO_MANY_MEMBERS: ErrorCode(
        422,
        "The composition has more adapters than fit into host memory at once.",
    ),
    # 429, 5xx: a quota or the server itself
    Code.QUOTA_EXCEEDED: ErrorCode(429, "The key has used up a quota. `param` names it."),
    Code.INTERNAL_ERROR: ErrorCode(
        500,
        "An internal error of the server. Its log has the reason under the same request id.",
    ),
    Code.NOT_IMPLEMENTED: ErrorCode(501, "The base or the installed build of vLLM does not support this."),
    Code.OVERLOADED: ErrorCode(503, "Too many requests are waiting."),
    Code.SERVER_BUSY: ErrorCode(503, "Too many requests are in flight to start a benchmark."),
    Code.STORAGE_UNAVAILABLE: ErrorCode(503, "The disk or the database of the registry does not respond."),
    Code.ADAPTER_FILES_MISSING: ErrorCode(
        503,
        "The files of the adapter are missing or damaged in the store.",
    ),
    Code.COMPOSITION_UNAVAILABLE: ErrorCode(503, "The engine could not build this adapter or composition."),
    Code.ENGINE_LOADING: ErrorCode(503, "The server has just started and is loading the model."),
    Code.ENGINE_UNAVAILABLE: ErrorCode(503, "The engine died and is being restarted."),
    Code.ENGINE_STUCK: ErrorCode(503, "The engine does not respond."),
    Code.ENGINE_DEAD: ErrorCode(503, "The engine is not running."),
    Code.BASE_LOST: ErrorCode(503, "The base weights could not be restored. Restart the server."),
}

WITHOUT_ENGINE = frozenset({Code.ENGINE_LOADING, Code.ENGINE_UNAVAILABLE, Code.INTERNAL_ERROR})
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
    Code.WRONG_BASE,
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
