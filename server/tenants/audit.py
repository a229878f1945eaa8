"""The audit log: one line of JSON for each request that changed something or that authentication refused.

A version that the server removes by itself has a line too, with "event" instead of a request. Lines are only
appended. Generating requests are not in it; the metrics count them.
"""

import json
import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.types import Scope

from lora_compose.server.paths import GENERATING, NAMING
from lora_compose.server.tenants.key import Key
from lora_compose.server.tenants.quotas import TokenBucket

logger = logging.getLogger(__name__)

AUDIT_FILE = "audit.jsonl"
"""The name of the log in the data directory."""
DENIED = frozenset({401, 403})
READING = frozenset({"GET", "HEAD", "OPTIONS"})
UNAUTHENTICATED_PER_MINUTE = 60
"""The most lines about requests without a valid key, so that these cannot fill the disk."""


@dataclass
class AuditEntry:
    """The key of a request and the objects that it changed. Routes set these fields."""

    key: Key | None = None
    adapter: str | None = None
    version: int | None = None
    digest: str | None = None
    composition: str | None = None
    is_recorded: bool = False
    """Whether `Audit.record` was called for the request."""

    def changed(self) -> dict[str, Any]:
        """The fields that a route has set."""
        fields = {name: getattr(self, name) for name in ("adapter", "version", "digest", "composition")}
        return {name: value for name, value in fields.items() if value is not None}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


class Audit:
    """Appends lines to `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._unauthenticated = TokenBucket(UNAUTHENTICATED_PER_MINUTE, 60.0)
        self._omitted = 0

    def record(self, scope: Scope, entry: AuditEntry, status: int) -> None:
        """Write a line if the request changed something or authentication refused it."""
        entry.is_recorded = True
        changes = scope["method"] not in READING and scope["path"] not in (*GENERATING, *NAMING)
        if not changes and status not in DENIED:
            return
        if entry.key is None:
            if self._unauthenticated.wait(1):
                self._omitted += 1
                return
            self._unauthenticated.take(1)
        self._append(self._line(scope, entry, status))

    def record_removal(self, adapter: str, version: int, digest: str, reason: str) -> None:
        """Write a line about a version that the server removed by itself."""
        changed = {"adapter": adapter, "version": version, "digest": digest, "reason": reason}
        self._append({"time": _now(), "event": "version_removed", **changed})

    def _line(self, scope: Scope, entry: AuditEntry, status: int) -> dict[str, Any]:
        headers, key = dict(scope["headers"]), entry.key
        line = {
            "time": _now(),
            "request_id": headers.get(b"x-request-id", b"").decode("ascii", "replace"),
            "client": (scope.get("client") or ("",))[0],
            "key": None if key is None else key.id,
            "key_name": None if key is None else key.name,
            "method": scope["method"],
            "path": scope["path"][:300],
            "status": status,
        }
        line |= entry.changed()
        if self._omitted:
            line["left_out_before"], self._omitted = self._omitted, 0
        return line

    def _append(self, line: dict[str, Any]) -> None:
        data = (json.dumps(line, ensure_ascii=True) + "\n").encode()
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, data)  # one write, so that lines of several processes are not mixed
            finally:
                os.close(file)
        except OSError as error:
            logger.error("this line could not be written to the audit log (%s): %s", error, data.decode())
