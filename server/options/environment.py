"""What becomes of the environment variables that vLLM's HTTP server and its handlers read.

Every variable that vLLM's `entrypoints` read is in exactly one of these tables. Every other variable of vLLM
reaches the engine unchanged. A test walks vLLM's code, so that an upgrade cannot add one that does nothing.
"""

import os
from collections.abc import Mapping

from lora_compose.server.options.decisions import ONE_ENGINE, names
from lora_compose.server.options.refusals import invalid

KEY = "VLLM_API_KEY"
ON = frozenset({"1", "true"})
OFF = frozenset({"", "0", "false"})

SERVER = frozenset({KEY, "VLLM_HTTP_TIMEOUT_KEEP_ALIVE", "VLLM_LOGGING_LEVEL"})
"""Honoured by the HTTP server and the command of this project."""

HANDLERS = names(
    """
    FORCE_COLOR NO_COLOR VLLM_CHAT_TEMPLATE_RENDER_TIMEOUT VLLM_CONFIGURE_LOGGING VLLM_DISABLE_LOG_LOGO
    VLLM_ENABLE_RESPONSES_API_STORE VLLM_ENFORCE_STRICT_TOOL_CALLING
    VLLM_GPT_OSS_HARMONY_SYSTEM_INSTRUCTIONS VLLM_GPT_OSS_SYSTEM_TOOL_MCP_LABELS VLLM_LOGGING_COLOR
    VLLM_LOGGING_CONFIG_PATH VLLM_LOGGING_PREFIX VLLM_LOGGING_STREAM VLLM_LOG_STATS_INTERVAL
    VLLM_MAX_AUDIO_CLIP_FILESIZE_MB VLLM_MAX_AUDIO_DECODE_BYTES VLLM_MAX_AUDIO_DECODE_DURATION_S
    VLLM_MAX_AUDIO_PREPROCESS_WORKERS VLLM_MAX_COMPLETION_PROMPTS VLLM_MAX_N_SEQUENCES
    VLLM_MAX_STOP_STRINGS VLLM_MEDIA_CACHE VLLM_MEDIA_CONNECTOR VLLM_MEDIA_URL_ALLOW_REDIRECTS
    VLLM_SYSTEM_START_DATE VLLM_TOOL_JSON_ERROR_AUTOMATIC_RETRY VLLM_TOOL_PARSE_REGEX_TIMEOUT_SECONDS
    VLLM_USE_EXPERIMENTAL_PARSER_CONTEXT VLLM_VIDEO_FETCH_TIMEOUT
    """
)
"""Honoured by vLLM's request handlers and its logging, which this server uses."""

ENGINE = names(
    """
    CUDA_VISIBLE_DEVICES VLLM_CPU_KVCACHE_SPACE VLLM_PLUGINS VLLM_TRACE_FUNCTION
    VLLM_WORKER_MULTIPROC_METHOD
    """
)
"""Honoured by vLLM's engine."""

OTHER_COMMANDS = frozenset({"VLLM_USE_RUST_BENCH"})
"""Read by other commands of vLLM."""

_DOWNLOAD = "Download the model and give its directory to --model"
REFUSED_IF_ON = {
    "VLLM_DEBUG_LOG_API_SERVER_RESPONSE": "Use --enable-log-requests with --enable-log-outputs",
    "VLLM_ENABLE_COHERE_API": "The server has no routes under /cohere. Use /v1/chat/completions",
    "VLLM_SERVER_DEV_MODE": "The server does not offer vLLM's routes for development",
    "VLLM_SKIP_MODEL_NAME_VALIDATION": (
        "The server never answers an unknown model with the base. Give the base further names with "
        "--served-model-name"
    ),
    "VLLM_USE_MODELSCOPE": _DOWNLOAD,
    "VLLM_USE_RUST_FRONTEND": "The HTTP server is this project's own",
}
REFUSED_IF_OFF = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": (
        "Adapters can always be registered while the server runs. Give clients keys with the role inference"
    ),
    "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH": "The server always stays up, and replaces a failed engine",
}
REFUSED_IF_SET = {
    "VLLM_LORA_RESOLVER_CACHE_DIR": "Use --lora-modules, or --adapter-root and register them",
    "VLLM_LORA_RESOLVER_HF_REPO_LIST": "Use --allow-hf to register adapters of the Hub, or --lora-modules",
    "VLLM_MODEL_REDIRECT_PATH": _DOWNLOAD,
    "VLLM_RUST_FRONTEND_PATH": "The HTTP server is this project's own",
    **dict.fromkeys(
        ("VLLM_DP_MASTER_IP", "VLLM_DP_MASTER_PORT", "VLLM_DP_RANK", "VLLM_DP_RANK_LOCAL", "VLLM_DP_SIZE"),
        ONE_ENGINE,
    ),
}
REFUSED = {**REFUSED_IF_ON, **REFUSED_IF_OFF, **REFUSED_IF_SET}


def check_variables(environment: Mapping[str, str] = os.environ) -> None:
    """Raise LoraComposeError for a variable that asks for what this server does not do."""
    for name, hint in REFUSED.items():
        value = environment.get(name, "").strip()
        is_refused = {
            name in REFUSED_IF_ON: value.lower() not in OFF,
            name in REFUSED_IF_OFF: value != "" and value.lower() not in ON,
            name in REFUSED_IF_SET: value != "",
        }[True]
        if is_refused:
            raise invalid(f"{name}={value} in the environment has no effect here. {hint}. Unset {name}.")
    port = environment.get("VLLM_PORT", "")
    if port and not port.isdecimal():
        raise invalid(
            f"VLLM_PORT={port} in the environment must be a number. Kubernetes sets it for a service named "
            "vllm: rename the service, or unset VLLM_PORT."
        )
    plugins = environment.get("VLLM_PLUGINS")
    if plugins is not None and "lora_compose" not in plugins.split(","):
        raise invalid(f"VLLM_PLUGINS={plugins} in the environment must contain lora_compose.")


def take_key() -> tuple[str, ...]:
    """The API key of VLLM_API_KEY. It leaves the environment, because vLLM's own check would use it too."""
    key = os.environ.pop(KEY, "")
    return (key,) if key else ()
