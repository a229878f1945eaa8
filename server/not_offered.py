"""The paths of vLLM, OpenAI, Anthropic and others that this server does not offer, with what to use instead.

Every other path without a route gets the nearest path that has one, if there is one. The base URL of a client
often has one `/v1` too many or too few.
"""

import re
from collections.abc import Iterator
from difflib import get_close_matches

from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

_ENGINE = (
    "It would change the engine without the server. GET /v1/residency and GET /metrics show its state, "
    "and PUT /v1/fusion changes the base weights."
)
_TOKENS = "POST /tokenize returns the tokens of a prompt or of a chat, and POST /detokenize their text."
_STORED = "This server stores no files. Send each request by itself."
_NO_TOOLS = "This server only has models. Use /v1/responses or /v1/chat/completions."

NOT_OFFERED: dict[str, str] = {
    # vLLM's
    r"/v1/audio/.*|/v1/realtime(/.*)?": "Use a server with a speech model.",
    r"/v1/chat/completions/batch": "Send each chat to /v1/chat/completions. The engine batches them.",
    r"/(v1|cohere/v2)/.*/(de)?render": _TOKENS,
    r"/inference/v1/.*|/generate_tokens": "Send the token ids as prompt to /v1/completions.",
    r"/(inference/v1/)?abort_requests": "Close the connection of a request to end it.",
    r"/invocations": "Send the body to the path of its kind, such as /v1/chat/completions.",
    r"/generative_scoring": "Send the texts to /v1/completions, with prompt_logprobs.",
    r"/v1/systemone": "Send structured_outputs to /v1/chat/completions.",
    r"/v1/loras?(/.*)?": "Use /v1/adapters, or /v1/load_lora_adapter and /v1/unload_lora_adapter.",
    r"/cohere/.*|/v2/chat": "Use /v1/chat/completions.",
    r"/server_info|/kv_event_sources": "GET /version, /openapi.json and /metrics describe this server.",
    r"/(start|stop)_profile": "GET /metrics has the times of requests. POST /v1/benchmarks measures them.",
    r"/reset_(prefix|mm|encoder)_cache|/sleep|/wake_up|/is_sleeping|/release_kv_cache_memory": _ENGINE,
    r"/collective_rpc|/pause|/resume|/is_paused|/(is_)?scal(e|ing)_elastic_ep|/fault_tolerance/.*": _ENGINE,
    r"/(init|shutdown)_weight_transfer_engine|/(start|start_draft|finish)_weight_update": _ENGINE,
    r"/update_weights|/update_weight_version|/weight_info|/weight_checker|/get_world_size": _ENGINE,
    # OpenAI's
    r"/v1/images(/.*)?|/v1/videos(/.*)?": "Use a server that makes images.",
    r"/v1/(files|uploads|batches|vector_stores|containers)(/.*)?": _STORED,
    r"/v1/fine_tuning(/.*)?|/v1/fine-tunes(/.*)?": (
        "`lora-compose train` trains an adapter, and POST /v1/adapters registers it."
    ),
    r"/v1/moderations": "Ask the base or an adapter with /v1/chat/completions.",
    r"/v1/edits|/v1/engines(/.*)?": "Use /v1/completions, and /v1/models for the list of models.",
    r"/v1/chat/completions/.+": "This server does not store chats. Keep the messages in the client.",
    r"/v1/(assistants|threads|conversations|evals|graders|chatkit|skills)(/.*)?": _NO_TOOLS,
    r"/v1/responses/input_tokens": _TOKENS,
    r"/v1/responses/compact|/v1/responses/[^/]+/input_items": "Keep the input in the client.",
    r"/v2/(health|models|repository)(/.*)?": "Use /readyz, and /v1/models for the list of models.",
    # Anthropic's
    r"/v1/messages/batches(/.*)?": "Send each request to /v1/messages. The engine batches them.",
    r"/v1/complete": "Use /v1/messages, or /v1/completions for a plain prompt.",
    # Ollama's, LoRAX's and TGI's, llama.cpp's
    r"/api/(pull|push|create|copy|delete|blobs)(/.*)?": (
        "POST /v1/adapters registers an adapter, and DELETE /v1/adapters/NAME removes it."
    ),
    r"/api/embed(dings)?|/embed(ding)?": "Use /v1/embeddings, with a base that embeds.",
    r"/classify_batch": "Use /classify, with a base that classifies.",
    r"/chat_tokenize|/apply-template": _TOKENS,
    r"/completion|/infill": "Use /v1/completions.",
    r"/props|/slots(/.*)?": "GET /info, /v1/residency and /metrics describe this server.",
    r"/redoc|/swagger(/.*)?|/docs/.+": "GET /docs shows the routes, and GET /openapi.json describes them.",
}
"""What to use instead, by a pattern of the whole path. A route of this server comes before it."""
MAX_PARTS = 16
"""The most parts of a path that are looked at to find the nearest one."""
_PATTERNS = [(re.compile(pattern), text) for pattern, text in NOT_OFFERED.items()]


def instead_of(path: str) -> str | None:
    """What to use in place of a path that another server offers; None if the path is not in the table."""
    return next((text for pattern, text in _PATTERNS if pattern.fullmatch(path)), None)


def match_of(scope: Scope) -> Match:
    """Whether a route of the app takes this path and method, only the path, or neither."""
    routes: list[BaseRoute] = scope["app"].routes
    return max((route.matches(scope)[0] for route in routes), key=lambda match: match.value)


def nearest_path(scope: Scope) -> str | None:
    """The path of this server that the client probably means; None if no path is near."""
    routes = [route for route in scope["app"].routes if isinstance(route, Route)]
    for path in _rewritten(scope["path"]):
        if any(route.matches({**scope, "path": path})[0] != Match.NONE for route in routes):
            return path
    known = {route.path for route in routes if "{" not in route.path}
    return next(iter(get_close_matches(scope["path"][:200], known, n=1, cutoff=0.85)), None)


def _rewritten(path: str) -> Iterator[str]:
    """The path without empty parts, then without its first parts, each also below `/v1`."""
    parts = [part for part in path.split("/", MAX_PARTS)[:MAX_PARTS] if part]
    for spelled in (parts, [part.lower() for part in parts]):
        for start in range(len(spelled)):
            rest = "/".join(spelled[start:])
            yield f"/{rest}"
            yield f"/v1/{rest}"
