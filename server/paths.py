"""Paths that several packages treat in the same way: probes, generating routes, routes with a name."""

from starlette.convertors import Convertor, register_url_convertor
from typing_extensions import override

from lora_compose.adapters.names import SUB_PATHS

PROBES = frozenset({"/livez", "/readyz", "/health", "/ping"})
PLAYGROUND = "/playground/"
"""The static files of the page at `/` are below this path."""
MESSAGES = "/v1/messages"
"""Anthropic's route. Errors of it and of the paths below it have Anthropic's shape."""
RESPONSES = "/v1/responses"
GENERATING = ("/v1/chat/completions", "/v1/completions", RESPONSES, MESSAGES)
"""vLLM's routes that generate text. Their composition must be resident."""
POOLING = (
    *("/v1/embeddings", "/v2/embed", "/pooling", "/classify", "/score", "/v1/score", "/rerank", "/v1/rerank"),
    "/v2/rerank",
)
"""vLLM's routes that embed, classify or score, if the base can. Their composition must be resident."""
NAMING = ("/tokenize", "/detokenize", f"{MESSAGES}/count_tokens")
"""vLLM's routes that only use the name of a composition. Nothing is made resident."""
TRANSLATED = ("/", "/generate", "/generate_stream", "/api/chat", "/api/generate")
"""Routes of other servers that generate: of TGI and LoRAX, and of Ollama."""
COMPOSING = (*GENERATING, *POOLING, *NAMING)
"""All routes of vLLM whose body names a composition."""


def is_anthropic(path: str) -> bool:
    """Whether the clients of this path expect Anthropic's errors."""
    return path == MESSAGES or path.startswith(f"{MESSAGES}/")


_PART = r"(?!\.{1,2}(?:/|$))[^/]+"
NAME_IN_PATH = rf"{_PART}(?:/(?!(?:{'|'.join(SUB_PATHS)})(?:/|$)){_PART})*"
"""What may stand in a path in place of a name. The route checks the name itself."""


class _NameConvertor(Convertor[str]):
    """Leaves the sub-paths of a name, such as `/pin`, to their own routes."""

    regex = NAME_IN_PATH

    @override
    def convert(self, value: str) -> str:
        return value

    @override
    def to_string(self, value: str) -> str:
        return value


register_url_convertor("adapter", _NameConvertor())

ADAPTER = "/v1/adapters/{reference:adapter}"
ALIAS = "/v1/adapters/{name:adapter}/aliases/{alias}"
PIN = f"{ADAPTER}/pin"
SAVED_COMPOSITION = "/v1/compositions/{name:adapter}"
"""The routes whose paths have a name, which may have several parts, such as `org/adapter`."""
