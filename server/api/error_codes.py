"""Every `code` an error may have over HTTP: its status, and what it means to the one who gets it.

An operation names groups of these; its statuses follow from them. A test reads the code base and holds that
no code is raised that is not here.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ErrorCode:
    """Stable: a client may switch on the code it is filed under."""

    status: int
    meaning: str


ERROR_CODES = {
    # 400: what was sent is not well-formed
    "invalid_request": ErrorCode(
        400, "A field, parameter or header has a value it may not have; see `param`."
    ),
    "invalid_json": ErrorCode(400, "The body is not a JSON object."),
    "unknown_field": ErrorCode(400, "There is no such field or parameter here."),
    "conflicting_fields": ErrorCode(400, "The request names adapters in two ways at once."),
    "invalid_model": ErrorCode(400, "`model` is not a string, or empty."),
    "invalid_name": ErrorCode(400, "Not a name an adapter, alias or composition can have."),
    "invalid_composition": ErrorCode(400, "A composition that is empty, too long or not well-formed."),
    "duplicate_member": ErrorCode(400, "A composition names one adapter twice."),
    "invalid_weight": ErrorCode(400, "A weight that is no finite number, or too large for the adapter."),
    "unknown_method": ErrorCode(400, "There is no such way to combine adapters."),
    "missing_density": ErrorCode(400, "The method needs a density."),
    "invalid_density": ErrorCode(400, "A density that is none, or that the method does not take."),
    "invalid_rank": ErrorCode(400, "A rank that is none, or that the method does not take."),
    "invalid_seed": ErrorCode(400, "A seed that is none, or that the method does not take."),
    "invalid_majority_sign_method": ErrorCode(400, "Neither total nor frequency, or the method takes none."),
    "invalid_source": ErrorCode(400, "Not exactly one of the places an adapter can come from."),
    "source_not_allowed": ErrorCode(400, "This server takes no adapters from the Hub."),
    "invalid_upload": ErrorCode(400, "Not an upload of the two files of an adapter."),
    "digest_mismatch": ErrorCode(400, "The files did not arrive as they were sent."),
    "invalid_lineage": ErrorCode(400, "`lineage` is no JSON object, too large or too deep."),
    "invalid_version": ErrorCode(400, "Not a version number."),
    "out_of_range": ErrorCode(400, "A number or list beyond the bounds that the message names."),
    "given_twice": ErrorCode(400, "A list that names something twice."),
    "arm_not_allowed": ErrorCode(400, "A benchmark arm that cannot be run over HTTP."),
    "too_few_adapters": ErrorCode(400, "A benchmark arm needs more adapters than there are."),
    # 401, 403: who may
    "invalid_api_key": ErrorCode(401, "No key, or one that is good no more."),
    "permission_denied": ErrorCode(403, "The key's role does not allow this."),
    "name_not_allowed": ErrorCode(403, "The key may not use this name."),
    "path_not_allowed": ErrorCode(403, "The path is in no directory adapters may come from."),
    # 404: what is not there, or not for this key
    "not_found": ErrorCode(404, "There is no such path, or not on this port."),
    "model_not_found": ErrorCode(404, "No such adapter, version, alias or composition."),
    "adapter_not_found": ErrorCode(404, "There is no adapter at the path or on the Hub."),
    "alias_not_found": ErrorCode(404, "The adapter has no such alias."),
    "composition_not_found": ErrorCode(404, "There is no such saved composition."),
    "benchmark_not_found": ErrorCode(404, "There is no such benchmark."),
    "result_not_found": ErrorCode(404, "The benchmark ended without it."),
    "method_not_allowed": ErrorCode(405, "The path does not take this method."),
    # 409: not now, with things as they are
    "name_reserved": ErrorCode(409, "The name is the base's, a method's or another thing's."),
    "name_taken": ErrorCode(409, "A composition of that name says something else."),
    "in_use": ErrorCode(409, "A saved composition needs it."),
    "pins_exhausted": ErrorCode(409, "Pinning it would leave no room in host memory for others."),
    "fusion_busy": ErrorCode(409, "The base is being switched."),
    "benchmark_running": ErrorCode(409, "A benchmark is running."),
    "benchmark_not_running": ErrorCode(409, "The benchmark has ended already."),
    "request_too_large": ErrorCode(413, "The body is larger than this server reads."),
    "unsupported_media_type": ErrorCode(415, "The body has another content type or encoding."),
    # 422: well-formed, and cannot be served
    "missing_config": ErrorCode(422, "There is no adapter_config.json."),
    "missing_weights": ErrorCode(422, "There is no adapter_model.safetensors."),
    "not_a_regular_file": ErrorCode(422, "A link, pipe or device in place of a file."),
    "bad_adapter_config": ErrorCode(422, "adapter_config.json cannot be read."),
    "bad_rank": ErrorCode(422, "A rank in the config that is none."),
    "bad_alpha": ErrorCode(422, "A lora_alpha in the config that is none."),
    "rank_mismatch": ErrorCode(422, "Tensors of another rank than the config says."),
    "rank_too_large": ErrorCode(422, "More rank than the server's max_lora_rank; merge at a lower one."),
    "unsupported_feature": ErrorCode(422, "The adapter uses something that cannot be served."),
    "corrupt_weights": ErrorCode(422, "The weights' file is broken or incomplete."),
    "weights_too_large": ErrorCode(422, "The weights' file is larger than is accepted."),
    "non_finite_weights": ErrorCode(422, "Weights that are NaN or infinite, or would be once scaled."),
    "wrong_base": ErrorCode(422, "The adapter was made for another base."),
    "unknown_layer": ErrorCode(422, "Tensors for a layer that the base does not have."),
    "unknown_module": ErrorCode(422, "Tensors for a module that the base does not have."),
    "pickle_refused": ErrorCode(422, "The weights are a pickle; it was not opened."),
    "not_fusable": ErrorCode(422, "The composition cannot be folded into this base."),
    "too_many_members": ErrorCode(422, "More adapters at once than host memory has room for."),
    # 429, 5xx: a client may try again
    "quota_exceeded": ErrorCode(429, "The key has used up a quota; `param` names it."),
    "internal_error": ErrorCode(500, "A bug of ours. The server's log has the reason, with this request id."),
    "not_implemented": ErrorCode(501, "The base or this build of vLLM cannot do that."),
    "overloaded": ErrorCode(503, "Too much is waiting."),
    "server_busy": ErrorCode(503, "Too many requests are in flight to begin a benchmark."),
    "storage_unavailable": ErrorCode(503, "The registry's disk or database does not answer."),
    "adapter_files_missing": ErrorCode(503, "The adapter's files are gone from the store."),
    "composition_unavailable": ErrorCode(503, "The engine could not prepare it."),
    "engine_unavailable": ErrorCode(503, "The engine died and is being started again."),
    "engine_stuck": ErrorCode(503, "The engine gives no sign of life."),
    "engine_dead": ErrorCode(503, "The engine is not running."),
    "base_lost": ErrorCode(503, "The base's weights could not be restored: restart the server."),
}

WITHOUT_ENGINE = frozenset({"engine_unavailable", "internal_error"})
AUTH_ERRORS = WITHOUT_ENGINE | {
    "invalid_api_key",
    "permission_denied",
    "quota_exceeded",
    "storage_unavailable",
}
BODY = frozenset({"invalid_json", "request_too_large", "unsupported_media_type"})
NAMED = frozenset({"invalid_name", "model_not_found", "adapter_files_missing"})
COMPOSED = NAMED | {
    "invalid_model",
    "conflicting_fields",
    "unknown_field",
    "invalid_composition",
    "duplicate_member",
    "invalid_weight",
    "unknown_method",
    "missing_density",
    "invalid_density",
    "invalid_rank",
    "invalid_seed",
    "invalid_majority_sign_method",
    "rank_too_large",
}
MERGED = frozenset({
    "wrong_base",
    "non_finite_weights",
    "corrupt_weights",
    "missing_weights",
    "missing_config",
})
BUILT = MERGED | {"composition_unavailable", "too_many_members", "base_lost"}
VLLM = frozenset({"invalid_request", "model_not_found", "not_found", "not_implemented", "overloaded"})
ADMITTED = frozenset({
    "invalid_name",
    "name_not_allowed",
    "name_reserved",
    "path_not_allowed",
    "adapter_not_found",
    "composition_unavailable",
    "adapter_files_missing",
    *(code for code, about in ERROR_CODES.items() if about.status == 422),
}) - {"not_fusable", "too_many_members"}
