"""What can be refused, as exceptions whose facts are fields.

Every class here is something a user can cause. `code` is the stable string an API client may switch on;
`server/errors.py` maps the classes to HTTP statuses. Nothing is ever decided by message text.
"""

from dataclasses import dataclass


@dataclass
class LoraComposeError(Exception):
    """A refusal: `code` is stable, `message` is for people, `param` names the request field at fault."""

    code: str
    message: str
    param: str | None = None

    def __str__(self) -> str:
        return self.message


class AdapterRejected(LoraComposeError):
    """An adapter's files do not pass admission (HTTP 422)."""


class InvalidRequest(LoraComposeError, ValueError):
    """A name, weight, method or composition that is not well-formed (HTTP 400).

    It is a ValueError, so that a pydantic model can have our checks as its validators."""


class NotFound(LoraComposeError):
    """A name, version, alias or composition that is not registered (HTTP 404)."""


class Conflict(LoraComposeError):
    """A name that is taken or reserved, or a thing still in use (HTTP 409)."""


class Forbidden(LoraComposeError):
    """A path or action that is not allowed (HTTP 403)."""


class Unservable(LoraComposeError):
    """A well-formed composition this server cannot serve, such as too high a rank (HTTP 422)."""


class Busy(LoraComposeError):
    """Something that has to wait until the server is less busy (HTTP 503)."""


@dataclass
class QuotaExceeded(LoraComposeError):
    """More than a key may have (HTTP 429)."""

    retry_after: float | None = None
    """Seconds after which it may be had; None where waiting does not help."""

    def __str__(self) -> str:
        return self.message


class StorageUnavailable(LoraComposeError):
    """The registry's disk or database cannot be read or written now (HTTP 503)."""
