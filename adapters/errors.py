"""Exceptions for everything that is refused, and their error codes.

Every class here is an error that a user can cause. `code` is a stable string that API clients may compare.
`server/errors.py` maps the classes to HTTP statuses. No code makes a decision from the text of a message.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

ServerCode = NewType("ServerCode", str)
"""A code that a server sent. This version may not know it."""


class Code(StrEnum):
    """Every stable `code` that a server sends.

    `server/api/error_codes.py` has the status and meaning of each."""

    ADAPTER_FILES_MISSING = "adapter_files_missing"
    ADAPTER_NOT_FOUND = "adapter_not_found"
    ALIAS_NOT_FOUND = "alias_not_found"
    ARM_NOT_ALLOWED = "arm_not_allowed"
    BAD_ADAPTER_CONFIG = "bad_adapter_config"
    BAD_ALPHA = "bad_alpha"
    BAD_RANK = "bad_rank"
    BASE_LOST = "base_lost"
    BENCHMARK_NOT_FOUND = "benchmark_not_found"
    BENCHMARK_NOT_RUNNING = "benchmark_not_running"
    BENCHMARK_RUNNING = "benchmark_running"
    COMPOSITION_NOT_FOUND = "composition_not_found"
    COMPOSITION_UNAVAILABLE = "composition_unavailable"
    CONFLICTING_FIELDS = "conflicting_fields"
    CORRUPT_WEIGHTS = "corrupt_weights"
    DIGEST_MISMATCH = "digest_mismatch"
    DUPLICATE_MEMBER = "duplicate_member"
    ENGINE_DEAD = "engine_dead"
    ENGINE_LOADING = "engine_loading"
    ENGINE_STUCK = "engine_stuck"
    ENGINE_UNAVAILABLE = "engine_unavailable"
    FORBIDDEN = "forbidden"
    FUSION_BUSY = "fusion_busy"
    GIVEN_TWICE = "given_twice"
    HEADERS_TOO_LARGE = "headers_too_large"
    IN_USE = "in_use"
    INTERNAL_ERROR = "internal_error"
    INVALID_API_KEY = "invalid_api_key"
    INVALID_COMPOSITION = "invalid_composition"
    INVALID_DENSITY = "invalid_density"
    INVALID_JSON = "invalid_json"
    INVALID_LINEAGE = "invalid_lineage"
    INVALID_MAJORITY_SIGN_METHOD = "invalid_majority_sign_method"
    INVALID_MODEL = "invalid_model"
    INVALID_NAME = "invalid_name"
    INVALID_RANK = "invalid_rank"
    INVALID_REQUEST = "invalid_request"
    INVALID_SEED = "invalid_seed"
    INVALID_SOURCE = "invalid_source"
    INVALID_TTL = "invalid_ttl"
    INVALID_UPLOAD = "invalid_upload"
    INVALID_VERSION = "invalid_version"
    INVALID_WEIGHT = "invalid_weight"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    MISSING_CONFIG = "missing_config"
    MISSING_DENSITY = "missing_density"
    MISSING_WEIGHTS = "missing_weights"
    MODEL_NOT_FOUND = "model_not_found"
    NAME_NOT_ALLOWED = "name_not_allowed"
    NAME_RESERVED = "name_reserved"
    NAME_TAKEN = "name_taken"
    NON_FINITE_WEIGHTS = "non_finite_weights"
    NOT_A_REGULAR_FILE = "not_a_regular_file"
    NOT_FOUND = "not_found"
    NOT_FUSABLE = "not_fusable"
    NOT_IMPLEMENTED = "not_implemented"
    NOT_OFFERED = "not_offered"
    OUT_OF_RANGE = "out_of_range"
    OVERLOADED = "overloaded"
    PATH_NOT_ALLOWED = "path_not_allowed"
    PERMISSION_DENIED = "permission_denied"
    PICKLE_REFUSED = "pickle_refused"
    PINS_EXHAUSTED = "pins_exhausted"
    QUOTA_EXCEEDED = "quota_exceeded"
    RANK_MISMATCH = "rank_mismatch"
    RANK_TOO_LARGE = "rank_too_large"
    RATE_LIMITED = "rate_limited"
    REQUEST_TIMEOUT = "request_timeout"
    REQUEST_TOO_LARGE = "request_too_large"
    RESPONSE_NOT_FOUND = "response_not_found"
    RESULT_NOT_FOUND = "result_not_found"
    SERVER_BUSY = "server_busy"
    SOURCE_NOT_ALLOWED = "source_not_allowed"
    STORAGE_UNAVAILABLE = "storage_unavailable"
    TIMEOUT = "timeout"
    TOO_FEW_ADAPTERS = "too_few_adapters"
    TOO_MANY_MEMBERS = "too_many_members"
    UNKNOWN_FIELD = "unknown_field"
    UNKNOWN_LAYER = "unknown_layer"
    UNKNOWN_METHOD = "unknown_method"
    UNKNOWN_MODULE = "unknown_module"
    UNPROCESSABLE = "unprocessable"
    UNSUPPORTED_FEATURE = "unsupported_feature"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    WEIGHTS_TOO_LARGE = "weights_too_large"
    WRONG_BASE = "wrong_base"


class CommandCode(StrEnum):
    """Every stable `code` that only commands show. Servers do not send them."""

    # Errors when a server starts, or in a command that opens the registry itself.
    ADDRESS_UNUSABLE = "address_unusable"
    DATA_DIR_IN_USE = "data_dir_in_use"
    DATA_DIR_NOT_WRITABLE = "data_dir_not_writable"
    ENGINE_NOT_STARTED = "engine_not_started"
    INVALID_OPTION = "invalid_option"
    PORT_IN_USE = "port_in_use"
    WRONG_DATABASE = "wrong_database"
    NO_REGISTRY = "no_registry"
    READ_ONLY = "read_only"
    SCHEMA_TOO_NEW = "schema_too_new"
    SCHEMA_TOO_OLD = "schema_too_old"
    KEY_NOT_FOUND = "key_not_found"
    KEYS_EXIST = "keys_exist"
    INVALID_ROLE = "invalid_role"
    INVALID_PATTERN = "invalid_pattern"
    INVALID_QUOTA = "invalid_quota"

    # Errors of the other commands.
    ALREADY_QUANTIZED = "already_quantized"
    AMBIGUOUS_FORM = "ambiguous_form"
    BAD_CONFIG = "bad_config"
    BAD_JUDGE = "bad_judge"
    BAD_PLAN = "bad_plan"
    BAD_ROW = "bad_row"
    BAD_RUN_RECORD = "bad_run_record"
    BAD_VALIDATION = "bad_validation"
    BASE_NOT_LOADED = "base_not_loaded"
    BASE_NOT_LOCAL = "base_not_local"
    BROKEN_FILE = "broken_file"
    CANNOT_JUDGE = "cannot_judge"
    CHAT_TEMPLATE_FAILED = "chat_template_failed"
    CHAT_NOT_SERVED = "chat_not_served"
    COMMAND_UNAVAILABLE = "command_unavailable"
    HARNESS_FAILED = "harness_failed"
    HARNESS_MISSING = "harness_missing"
    INIT_ADAPTER_NOT_LOADED = "init_adapter_not_loaded"
    INVALID_ARM = "invalid_arm"
    INVALID_MIX = "invalid_mix"
    INVALID_OUTPUT = "invalid_output"
    INVALID_RATIO = "invalid_ratio"
    INVALID_RECIPE = "invalid_recipe"
    INVALID_REQUIREMENT = "invalid_requirement"
    INVALID_URL = "invalid_url"
    KERNELS_NOT_TIMED = "kernels_not_timed"
    KEYS_NEEDED = "keys_needed"
    LEAKED = "leaked"
    LLAMACPP_UNAVAILABLE = "llamacpp_unavailable"
    MISSING_METHOD = "missing_method"
    MIXED_FORMS = "mixed_forms"
    MODEL_CHANGED = "model_changed"
    MODEL_NOT_DOWNLOADED = "model_not_downloaded"
    NOT_ENOUGH_MEMORY = "not_enough_memory"
    NO_END_LEARNT = "no_end_learnt"
    NO_MODEL = "no_model"
    NO_REFERENCE = "no_reference"
    NO_RESULT = "no_result"
    NO_ROWS = "no_rows"
    NO_TOKENIZER = "no_tokenizer"
    NOT_A_SERVER = "not_a_server"
    NOT_A_STACK = "not_a_stack"
    NOT_A_TASK = "not_a_task"
    NOT_CONVERTIBLE = "not_convertible"
    NOT_COMPARABLE = "not_comparable"
    NOT_OVER_HTTP = "not_over_http"
    NOT_PREFERENCES = "not_preferences"
    NOT_UTF8 = "not_utf8"
    NOTHING_TO_LEARN = "nothing_to_learn"
    OPTION_MOVED = "option_moved"
    OTHER_RUN = "other_run"
    OUTPUT_EXISTS = "output_exists"
    OUTPUT_NOT_WRITTEN = "output_not_written"
    PACKAGE_MISSING = "package_missing"
    REFEREE_FAILED = "referee_failed"
    REQUEST_FAILED = "request_failed"
    RUN_EXISTS = "run_exists"
    RUN_SPOILED = "run_spoiled"
    SERVER_NOT_READY = "server_not_ready"
    SERVER_UNREACHABLE = "server_unreachable"
    SEVERAL_MESSAGES = "several_messages"
    SOURCE_NOT_FOUND = "source_not_found"
    TOO_FEW_ROWS = "too_few_rows"
    UNCLEAR_LABELS = "unclear_labels"
    UNKNOWN_ARCHITECTURE = "unknown_architecture"
    TOO_MANY_DROPPED = "too_many_dropped"
    TOO_MANY_TOKENS = "too_many_tokens"
    UNKNOWN_FORM = "unknown_form"
    UNKNOWN_FORMAT = "unknown_format"
    UNKNOWN_JUDGE = "unknown_judge"
    UNKNOWN_SCORE = "unknown_score"
    UNKNOWN_TARGET_MODULE = "unknown_target_module"
    UNKNOWN_TASK = "unknown_task"
    VLLM_MISSING = "vllm_missing"
    WHICH_SPLIT = "which_split"
    WRONG_FORM = "wrong_form"


AnyCode = Code | CommandCode | ServerCode


@dataclass
class LoraComposeError(Exception):
    """A refusal. `code` is stable, `message` is for people, `param` names the wrong field of the request."""

    code: AnyCode
    message: str
    param: str | None = None

    def __str__(self) -> str:
        return self.message


class AdapterRejected(LoraComposeError):
    """The files of an adapter do not pass admission (HTTP 422)."""


class InvalidRequest(LoraComposeError, ValueError):
    """A name, weight, method or composition is not well-formed (HTTP 400).

    It is a ValueError, so that pydantic models can use our check functions as validators."""


class NotFound(LoraComposeError):
    """A name, version, alias or composition is not registered (HTTP 404)."""


class Conflict(LoraComposeError):
    """A name is taken or reserved, or an object is still in use (HTTP 409)."""


class Forbidden(LoraComposeError):
    """A path or action is not allowed (HTTP 403)."""


class Unservable(LoraComposeError):
    """A composition is well-formed, but this server cannot serve it: its rank is too high (HTTP 422)."""


class Busy(LoraComposeError):
    """The server is too busy for this request now (HTTP 503)."""


@dataclass
class QuotaExceeded(LoraComposeError):
    """A request exceeds a quota of its API key (HTTP 429)."""

    retry_after: float | None = None
    """Seconds until the request can succeed. None if waiting does not help."""

    def __str__(self) -> str:
        return self.message


class StorageUnavailable(LoraComposeError):
    """The disk or database of the registry cannot be read or written now (HTTP 503)."""
