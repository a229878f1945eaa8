"""The types of a translation, between the client of another server and vLLM.

`server/translations` has the translations. The endpoint stores the `Reply` in the request's state.
`translations/client_shape.py` uses it outside of all other middleware, so that metrics see vLLM's answer.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

REPLY = "reply"
"""The key in `scope["state"]` under which a translated route stores its Reply."""


class Reply(Protocol):
    """Translates the successful answer to one request. It may keep state from one event to the next."""

    @property
    def media_type(self) -> str:
        """The content type of a stream."""

    def whole(self, answer: dict[str, Any]) -> object:
        """The JSON value to send for vLLM's whole answer."""

    def event(self, event: dict[str, Any]) -> Iterable[bytes]:
        """The bytes to send for one event of vLLM's stream."""

    def end(self) -> Iterable[bytes]:
        """The bytes to send at the end of a stream without an error."""


@dataclass(frozen=True)
class Translated:
    """The request that vLLM's app gets."""

    path: str
    body: dict[str, Any]
    """A body of that path. It may have the fields of a composition."""
    reply: Reply


class Model(Protocol):
    """What a translation has to know of the engine."""

    @property
    def max_model_len(self) -> int: ...

    @property
    def special_token_ids(self) -> frozenset[int]: ...

    @property
    def parses_tools(self) -> bool: ...

    @property
    def parses_reasoning(self) -> bool: ...


@dataclass(frozen=True)
class Translation:
    """One route of another server."""

    translate: Callable[[dict[str, Any], Model], Translated]
    """Raises InvalidRequest for a field whose meaning this server cannot keep."""
    takes_forms: bool = False
    """Whether the body may have the content type of `curl -d`, as that server allows it."""
