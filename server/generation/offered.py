"""Refuses the routes of vLLM that the base, or the options of vLLM, do not allow."""

from lora_compose.adapters.errors import Code, NotFound
from lora_compose.server.paths import GENERATING, POOLING

_EMBED = "Start the server with --runner pooling --convert embed, or with a base that embeds."
_CLASSIFY = "It needs a base that classifies, or --runner pooling --convert classify."
_WHY = {
    "/classify": f"The base does not classify. {_CLASSIFY}",
    **dict.fromkeys(POOLING[:3], f"The base of this server does not embed. {_EMBED}"),
    **dict.fromkeys(POOLING[4:], f"The base of this server does not score. {_EMBED}"),
    **dict.fromkeys(
        GENERATING, "The base of this server embeds or classifies, and does not generate. Use POST /pooling."
    ),
    "/v1/messages/count_tokens": "The base of this server does not generate. Use POST /tokenize.",
    "/tokenizer_info": "Start the server with --enable-tokenizer-info-endpoint.",
}


def require_offered(path: str, offered: frozenset[str]) -> None:
    """Raises NotFound("not_offered") with the reason, if vLLM's app has not got the path."""
    if path not in offered:
        why = _WHY.get(path, "vLLM has not started it.")
        raise NotFound(Code.NOT_OFFERED, f"This server does not offer this path. {why}")
