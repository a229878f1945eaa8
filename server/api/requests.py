"""The request bodies of the routes that register adapters, set aliases and save compositions."""

from functools import partial
from typing import Annotated, Any, ClassVar

from annotated_types import Ge
from pydantic import ConfigDict, Field, PlainValidator, WithJsonSchema

from lora_compose.adapters.errors import Code, InvalidRequest
from lora_compose.adapters.names import ALIAS_PATTERN
from lora_compose.adapters.peft.files import CONFIG_FILE, WEIGHTS_FILE
from lora_compose.adapters.registry.lineage import check_lineage
from lora_compose.adapters.validation import ANY, Fault, Faults
from lora_compose.server.compositions.from_request import ComposedModel
from lora_compose.server.http.body import (
    MISSING_NAME,
    TEXT_SCHEMA,
    Alias,
    Body,
    Name,
    Reference,
    Text,
    matching,
)

Lineage = Annotated[
    dict[str, Any] | None,
    PlainValidator(partial(check_lineage, param=None)),
    WithJsonSchema({"anyOf": [{"type": "object"}, {"type": "string"}]}),
]
MAX_TTL_SECONDS = 10 * 366 * 86400


def _ttl_of(value: object) -> int:
    """A whole number of seconds, or in a form its digits. Raises InvalidRequest("invalid_ttl")."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 12:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_TTL_SECONDS:
        message = f"ttl_seconds must be a whole number of seconds between 1 and {MAX_TTL_SECONDS}."
        raise InvalidRequest(Code.INVALID_TTL, message)
    return value


def _ttl_of_json(value: object) -> int:
    return _ttl_of(None if isinstance(value, str) else value)


TTL_SCHEMA = WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MAX_TTL_SECONDS})
Ttl = Annotated[int, PlainValidator(_ttl_of_json), TTL_SCHEMA]
FormTtl = Annotated[int, PlainValidator(_ttl_of), TTL_SCHEMA]
UPLOADED = {CONFIG_FILE: "application/json", WEIGHTS_FILE: "application/octet-stream"}
"""The files of an upload, and their media types."""


class AdapterOffer(Body):
    """An adapter to register: exactly one of `path` and `hf`."""

    name: Name
    path: Text | None = None
    """A directory on the server's machine, inside an --adapter-root directory."""
    hf: Text | None = None
    """`org/repo` or `org/repo@revision` on the Hugging Face Hub, if the server runs with --allow-hf. An
    adapter in a directory of the repository is `org/repo:directory` or `org/repo@revision:directory`."""
    alias: Alias | None = None
    """An alias to set to the new version in the same step."""
    digest: Text | None = None
    """The SHA-256 that the files must have."""
    lineage: Lineage = None
    """How the adapter was made: any JSON object, stored and shown unchanged. A `base_fingerprint` in it says
    on which weights it was trained. `parents`, a list such as `["sql@3"]`, keeps these versions from being
    removed by --keep-versions or ttl_seconds."""
    ttl_seconds: Ttl | None = None
    """The version is removed after this time, unless something needs it. Registering the same files again
    replaces this value."""

    FAULTS: ClassVar[Faults] = {("name", "missing"): MISSING_NAME}


def _add_files(schema: dict[str, Any]) -> None:
    """Add the two files as binary fields of the form."""
    for name, media in UPLOADED.items():
        schema["properties"][name] = {"type": "string", "format": "binary", "contentMediaType": media}
        schema["required"].append(name)


class AdapterUpload(Body):
    """The two files of an adapter, and the other fields of `AdapterOffer`."""

    model_config = ConfigDict(json_schema_extra=_add_files)

    name: Name
    alias: Annotated[Alias | None, matching(ALIAS_PATTERN)] = None
    digest: Annotated[Text | None, TEXT_SCHEMA] = None
    lineage: Annotated[Lineage, TEXT_SCHEMA] = None
    ttl_seconds: FormTtl | None = None

    FAULTS: ClassVar[Faults] = {("name", "missing"): MISSING_NAME}


class AliasTarget(Body):
    """The version that the alias shall point to."""

    version: Annotated[int, Ge(1)]

    FAULTS: ClassVar[Faults] = {
        ("version", ANY): Fault(Code.INVALID_VERSION, "version must be a whole number of at least 1.")
    }


class LoadAdapter(Body):
    """vLLM's request to load an adapter. As in vLLM, other fields are ignored."""

    model_config = ConfigDict(extra="ignore")

    lora_name: Name
    lora_path: Text
    load_inplace: bool = False
    """The next version replaces the one before: that is removed, unless something needs it or the server runs
    with --keep-versions. Without this field, other files under a name become its next version too, and the
    one before stays."""
    ttl_seconds: Ttl | None = None
    """The same as in `POST /v1/adapters`. vLLM does not have this field."""

    FAULTS: ClassVar[Faults] = {
        ("lora_name", "missing"): MISSING_NAME,
        ("lora_path", ANY): Fault(Code.INVALID_SOURCE, "lora_path must be a directory."),
    }


class UnloadAdapter(Body):
    """vLLM's request to unload an adapter. As in vLLM, other fields are ignored."""

    model_config = ConfigDict(extra="ignore")

    lora_name: Reference

    FAULTS: ClassVar[Faults] = {("lora_name", "missing"): MISSING_NAME}


class NamedComposition(ComposedModel):
    """A composition to save. The name is not needed with `?dry_run=true`."""

    name: Name = Field(default_factory=str)


class OllamaShow(Body):
    """The model to show, as a request names it in `model`. Ollama's older clients send `name`."""

    model: Text | None = None
    name: Text | None = None
    verbose: bool | None = None
    system: Text | None = None
    template: Text | None = None
    options: dict[str, Any] | None = None
