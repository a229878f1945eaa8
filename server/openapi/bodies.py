"""What our routes read, as types of their fields: for the OpenAPI document and for unknown ones.

Nothing is validated with these: the parsers are the one place for that, and say what is wrong in our words.
"""

from typing import Annotated, Any, NotRequired

from annotated_types import Ge, Gt, Le, MaxLen, MinLen
from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from adapters.composition_fields import LORAX_STRATEGIES
from adapters.composition_options import MAX_RANK, MAX_SEED
from adapters.method_options import METHOD_NAMES, SPELLINGS, MajoritySignMethod
from adapters.names import MAX_NAME_LENGTH
from server.benchmark_plan import BOUNDS, LONGEST_LIST, MAX_CONCURRENCY, MAX_RATE

asked = with_config(ConfigDict(extra="forbid", use_attribute_docstrings=True))

_NAME = rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME_LENGTH - 1}}}"
_ALIAS = rf"[A-Za-z][A-Za-z0-9._-]{{0,{MAX_NAME_LENGTH - 1}}}"
PATTERNS = {
    "name": rf"^(?!.*\.\.){_NAME}$",
    "alias": rf"^(?!.*\.\.){_ALIAS}$",
    "reference": rf"^(?!.*\.\.){_NAME}(@([1-9][0-9]{{0,8}}|{_ALIAS}))?$",
}
"""Of names, aliases, and `name`, `name@2` or `name@alias`."""


def _matching(what: str) -> Any:
    return Field(json_schema_extra={"pattern": PATTERNS[what]})


Name = Annotated[str, _matching("name")]
Alias = Annotated[str, _matching("alias")]
Reference = Annotated[str, _matching("reference")]
Number = Annotated[float, Field(allow_inf_nan=False)]
Density = Annotated[float, Gt(0), Le(1)]
Method = Annotated[str, Field(json_schema_extra={"enum": [*METHOD_NAMES, *SPELLINGS]})]
Strategy = Annotated[str, Field(json_schema_extra={"enum": list(LORAX_STRATEGIES)})]


@asked
class AdapterOffer(TypedDict):
    """An adapter to register: exactly one of `path` and `hf`."""

    name: Name
    path: NotRequired[str | None]
    """A directory on the server's machine, inside an --adapter-root."""
    hf: NotRequired[str | None]
    """`org/repo` or `org/repo@revision`, where the server runs with --allow-hf."""
    alias: NotRequired[Alias | None]
    """To point at the new version, in the same step."""
    digest: NotRequired[str | None]
    """What the SHA-256 of the files must be."""
    lineage: NotRequired[dict[str, Any] | str]
    """How it came about: any JSON object, kept and shown as it is."""


@asked
class AliasTarget(TypedDict):
    """Where the alias is to point."""

    version: Annotated[int, Ge(1)]


@asked
class LoadAdapter(TypedDict):
    """vLLM's shape."""

    lora_name: Name
    lora_path: str
    load_inplace: NotRequired[bool]
    """vLLM's; here other bytes under a name are its next version, whatever this says."""


@asked
class UnloadAdapter(TypedDict):
    """vLLM's shape."""

    lora_name: Reference


@asked
class MemberFields(TypedDict):
    """An adapter and how strongly."""

    name: Reference
    weight: NotRequired[Number]


@asked
class MethodFields(TypedDict):
    """How to combine; without it the exact sum, a stack."""

    method: NotRequired[Method]
    rank: NotRequired[Annotated[int, Ge(1), Le(MAX_RANK)] | None]
    density: NotRequired[Density | None]
    seed: NotRequired[Annotated[int, Ge(0), Le(MAX_SEED)] | None]
    majority_sign_method: NotRequired[MajoritySignMethod | None]


@asked
class LlamaLora(TypedDict):
    """llama.cpp's: exactly one of `id` and `name`."""

    id: NotRequired[Reference]
    name: NotRequired[Reference]
    scale: Number


@asked
class MergedAdapters(TypedDict):
    """LoRAX's."""

    ids: Annotated[list[Reference], MinLen(1)]
    weights: NotRequired[list[Number] | None]
    merge_strategy: NotRequired[Strategy]
    density: NotRequired[Density | None]
    majority_sign_method: NotRequired[MajoritySignMethod | None]


class CompositionFields(TypedDict):
    """Which adapters, beside `model`; at most one of `adapters`, `lora` and `merged_adapters`."""

    adapters: NotRequired[Annotated[list[MemberFields], MinLen(1)] | None]
    composition: NotRequired[MethodFields | None]
    lora: NotRequired[Annotated[list[LlamaLora], MinLen(1)] | None]
    merged_adapters: NotRequired[MergedAdapters | None]


@asked
class ComposedModel(CompositionFields):
    """A composition in any form: as `model`, or in one of the fields."""

    model: NotRequired[Annotated[str, MinLen(1)]]
    """`sql`, `sql@2`, `sql:0.7+polite:0.3`, `ties(sql+polite,density=0.3)` or a saved composition."""


@asked
class NamedComposition(ComposedModel):
    """A composition to save. With `?dry_run=true` the name is not needed."""

    name: NotRequired[Name]


_Adapters = Annotated[list[Reference], MinLen(1), MaxLen(LONGEST_LIST)]
_Arm = Annotated[str, Field(json_schema_extra={"pattern": r"^(base|single|(stack|merge):[1-8])$"})]
_Concurrency = Annotated[int, Ge(1), Le(MAX_CONCURRENCY)]
_Rate = Annotated[float, Gt(0), Le(MAX_RATE)]


def _bounded(name: str) -> Any:
    low, high = BOUNDS[name]
    return Field(ge=low, le=high)


@asked
class BenchmarkFields(TypedDict):
    """What to measure; every field has a default."""

    adapters: NotRequired[_Adapters]
    arms: NotRequired[Annotated[list[_Arm], MinLen(1), MaxLen(LONGEST_LIST)]]
    concurrency: NotRequired[Annotated[list[_Concurrency], MinLen(1), MaxLen(LONGEST_LIST)]]
    rates: NotRequired[Annotated[list[_Rate], MinLen(1), MaxLen(LONGEST_LIST)]]
    requests: NotRequired[Annotated[int, _bounded("requests")]]
    output_tokens: NotRequired[Annotated[int, _bounded("output_tokens")]]
    prompt_tokens: NotRequired[Annotated[int, _bounded("prompt_tokens")]]
    repeats: NotRequired[Annotated[int, _bounded("repeats")]]
    seed: NotRequired[Annotated[int, _bounded("seed")]]
    max_seconds: NotRequired[Annotated[int, _bounded("max_seconds")]]
    """No pass begins later."""
    force: NotRequired[bool]
    """Begin and go on however busy the server is."""


AdapterUpload = TypedDict(
    "AdapterUpload",
    {
        "name": Name,
        "alias": NotRequired[Alias],
        "digest": NotRequired[str],
        "lineage": NotRequired[str],
        "adapter_config.json": bytes,
        "adapter_model.safetensors": bytes,
    },
)
AdapterUpload.__doc__ = "The two files of an adapter, and what else `AdapterOffer` has."


def fields_of(body: type) -> frozenset[str]:
    """The names of a body's fields."""
    return frozenset(body.__annotations__)
