"""The types of our responses in the shapes of other servers: llama.cpp, TGI and LoRAX, and Ollama."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from lora_compose.server.api.responses import documented


@documented
class NumberedAdapter(TypedDict):
    """An adapter in the shape of llama.cpp."""

    id: int
    """The number of this version for the field `lora`. A newer version has another number."""
    path: str
    """`name@version`."""
    scale: float
    task_name: str
    """The name of the adapter."""
    prompt_prefix: str


@documented
class TgiInfo(TypedDict):
    """The base and the limits, in the shape of TGI and LoRAX."""

    model_id: str
    model_sha: None
    model_dtype: str
    model_pipeline_tag: Literal["text-generation"]
    max_best_of: int
    max_input_length: int
    max_input_tokens: int
    max_total_tokens: int
    version: str
    """The version of lora-compose."""


@documented
class OllamaDetails(TypedDict):
    """What Ollama's clients show about a model. What this server does not know is empty."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


@documented
class OllamaModel(TypedDict):
    """A model in the shape of Ollama."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: OllamaDetails


@documented
class OllamaModels(TypedDict):
    """The base, then adapters, then saved compositions."""

    models: list[OllamaModel]


@documented
class OllamaRunning(OllamaModel):
    """A model in memory in the shape of Ollama."""

    size_vram: int
    context_length: int


@documented
class OllamaRunningModels(TypedDict):
    """The base, and the versions of adapters in host memory."""

    models: list[OllamaRunning]


@documented
class OllamaShown(TypedDict):
    """One model in the shape of Ollama."""

    modelfile: str
    parameters: str
    template: str
    details: OllamaDetails
    model_info: dict[str, Any]
    """`lora_compose.model` is the canonical name of the composition."""
    capabilities: list[str]
    modified_at: str


@documented
class OllamaVersion(TypedDict):
    """The version of Ollama whose API the routes follow."""

    version: str


@documented
class OllamaAnswer(TypedDict):
    """A complete answer. `/api/chat` has `message`, `/api/generate` has `response`."""

    model: str
    """The canonical name of the composition that answered."""
    created_at: str
    done: bool
    done_reason: str
    message: NotRequired[dict[str, Any]]
    response: NotRequired[str]
    thinking: NotRequired[str]
    logprobs: NotRequired[list[dict[str, Any]]]
    total_duration: NotRequired[int]
    """Durations are in nanoseconds."""
    load_duration: NotRequired[int]
    prompt_eval_count: NotRequired[int]
    prompt_eval_duration: NotRequired[int]
    eval_count: NotRequired[int]
    eval_duration: NotRequired[int]


@documented
class TgiAnswer(TypedDict):
    """A complete answer in the shape of TGI and LoRAX."""

    generated_text: str
    details: NotRequired[dict[str, Any]]
    """Finish reason, numbers of tokens, and the tokens with their log probabilities."""
