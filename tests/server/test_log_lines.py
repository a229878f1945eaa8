import json
import logging
import logging.config
import sys
from pathlib import Path

import pytest

from server.logs import VLLM_CONFIG, JsonFormatter, TextFormatter, configure
from server.request_id import REQUEST_ID


def record(message: str, **fields: object) -> logging.LogRecord:
    made = logging.LogRecord("server.x", logging.INFO, "x.py", 1, message, (), None)
    made.__dict__["fields"] = fields
    return made


def test_a_line_bears_the_request_s_id_and_its_fields() -> None:
    REQUEST_ID.set("r-1")
    told = json.loads(JsonFormatter().format(record("done", status=200)))
    assert (told["message"], told["request_id"], told["status"]) == ("done", "r-1", 200)
    assert (
        TextFormatter()
        .format(record("done", status=200))
        .endswith("server.x: done request_id=r-1 status=200")
    )


def test_a_traceback_stays_in_its_line() -> None:
    try:
        raise ValueError("a\nb")
    except ValueError:
        made = record("failed")
        made.exc_info = sys.exc_info()
    line = JsonFormatter().format(made)
    assert "\n" not in line
    assert "ValueError" in json.loads(line)["exception"]


def test_a_logging_config_of_the_operator_s_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VLLM_CONFIG, "/their/own.json")
    monkeypatch.setattr(logging.config, "dictConfig", lambda _: None)
    configure("json", tmp_path)
    assert list(tmp_path.iterdir()) == []
