import json
import logging
import logging.config
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from lora_compose.adapters.registry import registry
from lora_compose.server.http import access_log
from lora_compose.server.http.logs import VLLM_CONFIG, JsonFormatter, TextFormatter, configure
from lora_compose.server.http.request_id import REQUEST_ID


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


def test_a_json_line_has_these_fields_in_this_order_and_no_others() -> None:
    REQUEST_ID.set("r-1")
    made = record("done %s", status=200)
    made.args, made.__dict__["color_message"] = ("ü",), "not ours"
    line = json.loads(JsonFormatter().format(made))
    assert list(line) == ["time", "level", "logger", "message", "pid", "request_id", "status"]
    assert (line["level"], line["logger"], line["message"]) == ("INFO", "server.x", "done ü")
    assert datetime.fromisoformat(line["time"]).timestamp() == pytest.approx(made.created, abs=0.001)


def test_a_message_that_is_no_text_and_a_field_that_is_no_json_are_written_all_the_same() -> None:
    made = record("", path=Path("/x"))
    made.msg = {"a": 1}
    line = json.loads(JsonFormatter().format(made))
    assert line["message"] == "{'a': 1}"
    assert "/x" in line["path"]


def test_the_info_lines_of_every_package_are_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configs: list[dict[str, Any]] = []
    monkeypatch.setattr(logging.config, "dictConfig", configs.append)
    configure("text", tmp_path)
    for module in (access_log.__name__, registry.__name__):
        assert configs[0]["loggers"][module.partition(".")[0]]["level"] == "INFO"


def test_a_logging_config_of_the_operator_s_stays(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VLLM_CONFIG, "/their/own.json")
    monkeypatch.setattr(logging.config, "dictConfig", lambda _: None)
    configure("json", tmp_path)
    assert list(tmp_path.iterdir()) == []
