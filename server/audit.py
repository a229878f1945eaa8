"""The audit log: one line of JSON for everything that changed something, or was refused at the door.

Appended to, never rewritten. A request that generates is no change, and is counted by the metrics instead.
"""

import json
import logging
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.types import Scope

from server.paths import GENERATING, NAMING
from server.tenants.bucket import Bucket
from server.tenants.key import Key

logger = logging.getLogger(__name__)

DENIED = frozenset({401, 403})
READING = frozenset({"GET", "HEAD", "OPTIONS"})
STRANGERS_A_MINUTE = 60
"""Lines about requests without a good key: who knocks without end must not fill the disk."""


class Audit:
    """Writes to `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._strangers = Bucket(STRANGERS_A_MINUTE, 60.0)
        self._left_out = 0

    def note(self, scope: Scope, key: Key | None, status: int) -> None:
        """One line, if this is something to write down."""
        changes = scope["method"] not in READING and scope["path"] not in (*GENERATING, *NAMING)
        if not changes and status not in DENIED:
            return
        if key is None:
            if self._strangers.wait(1):
                self._left_out += 1
                return
            self._strangers.take(1)
        self._append(self._line(scope, key, status))

    def _line(self, scope: Scope, key: Key | None, status: int) -> dict[str, Any]:
        headers = dict(scope["headers"])
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
        line |= scope["state"]["audited"]._state
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
