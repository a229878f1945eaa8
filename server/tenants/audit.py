"""The audit log: one line of JSON for each request that changed something or was refused by authentication.

Appended to, never rewritten. A request that generates is no change, and is counted by the metrics instead.
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

DENIED = frozenset({401, 403})
READING = frozenset({"GET", "HEAD", "OPTIONS"})
STRANGERS_A_MINUTE = 60
"""Most lines about requests without a valid key, so that they cannot fill the disk."""


@dataclass
class AuditEntry:
    """What a request's line says besides how it came and ended. Routes set what they change."""

    key: Key | None = None
    adapter: str | None = None
    version: int | None = None
    digest: str | None = None
    composition: str | None = None
    is_noted: bool = False
    """Whether the line was written, or the request needs none."""

    def changed(self) -> dict[str, Any]:
        """What the request changed, as far as a route has said."""
        fields = {name: getattr(self, name) for name in ("adapter", "version", "digest", "composition")}
        return {name: value for name, value in fields.items() if value is not None}


class Audit:
    """Writes to `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._strangers = TokenBucket(STRANGERS_A_MINUTE, 60.0)
        self._left_out = 0

    def note(self, scope: Scope, entry: AuditEntry, status: int) -> None:
        """One line, if the request changed something or was refused by authentication."""
        entry.is_noted = True
        changes = scope["method"] not in READING and scope["path"] not in (*GENERATING, *NAMING)
        if not changes and status not in DENIED:
            return
        if entry.key is None:
            if self._strangers.wait(1):
                self._left_out += 1
                return
            self._strangers.take(1)
        self._append(self._line(scope, entry, status))

    def _line(self, scope: Scope, entry: AuditEntry, status: int) -> dict[str, Any]:
        headers, key = dict(scope["headers"]), entry.key
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": headers.get(b"x-request-id", b"").decode("ascii", "replace"),
            "client": (scope.get("client") or ("",))[0],
            "key": None if key is None else key.id,
            "key_name": None if key is None else key.name,
            "method": scope["method"],
            "path": scope["path"][:300],
            "status": status,
        }
        line |= entry.changed()
        if self._left_out:
            line["left_out_before"], self._left_out = self._left_out, 0
        return line

    def _append(self, line: dict[str, Any]) -> None:
        data = (json.dumps(line, ensure_ascii=True) + "\n").encode()
        try:
            file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                os.write(file, data)  # one write: lines of several processes do not mix
            finally:
                os.close(file)
        except OSError as error:
            logger.error("not in the audit log (%s): %s", error, data.decode())
