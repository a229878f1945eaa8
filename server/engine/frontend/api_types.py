"""vLLM's own request and response types of the routes that are passed on to it, for the OpenAPI document."""

from typing import Any

from vllm.entrypoints.anthropic.protocol import (
    AnthropicCountTokensRequest,
    AnthropicCountTokensResponse,
    AnthropicMessagesRequest,
    AnthropicMessagesResponse,
)
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest, ChatCompletionResponse
from vllm.entrypoints.openai.completion.protocol import CompletionRequest, CompletionResponse
from vllm.entrypoints.openai.responses.protocol import ResponsesRequest, ResponsesResponse
from vllm.entrypoints.pooling.classify.protocol import ClassificationRequest, ClassificationResponse
from vllm.entrypoints.pooling.embed.protocol import (
    CohereEmbedRequest,
    CohereEmbedResponse,
    EmbeddingRequest,
    EmbeddingResponse,
)
from vllm.entrypoints.pooling.pooling.protocol import PoolingRequest, PoolingResponse
from vllm.entrypoints.pooling.scoring.protocol import (
    RerankRequest,
    RerankResponse,
    ScoreRequest,
    ScoreResponse,
)
from vllm.entrypoints.serve.tokenize.protocol import (
    DetokenizeRequest,
    DetokenizeResponse,
    TokenizeRequest,
    TokenizeResponse,
)

VLLM_TYPES: dict[str, tuple[Any, Any]] = {
    "/v1/chat/completions": (ChatCompletionRequest, ChatCompletionResponse),
    "/v1/completions": (CompletionRequest, CompletionResponse),
    "/v1/responses": (ResponsesRequest, ResponsesResponse),
    "/v1/messages": (AnthropicMessagesRequest, AnthropicMessagesResponse),
    "/v1/messages/count_tokens": (AnthropicCountTokensRequest, AnthropicCountTokensResponse),
    "/v1/embeddings": (EmbeddingRequest, EmbeddingResponse),
    "/v2/embed": (CohereEmbedRequest, CohereEmbedResponse),
    "/pooling": (PoolingRequest, PoolingResponse),
    "/classify": (ClassificationRequest, ClassificationResponse),
    **dict.fromkeys(("/score", "/v1/score"), (ScoreRequest, ScoreResponse)),
    **dict.fromkeys(("/rerank", "/v1/rerank", "/v2/rerank"), (RerankRequest, RerankResponse)),
    "/tokenize": (TokenizeRequest, TokenizeResponse),
    "/detokenize": (DetokenizeRequest, DetokenizeResponse),
}
"""(request, response) by path."""
