"""The format of log lines, text or JSON, for this project, uvicorn and vLLM.

Every line that is written while a request is answered has its request id. No line has prompts, keys or the
paths of requests.
"""

import json
import logging
import logging.config
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TextIO

from pythonjsonlogger.json import JsonFormatter as BaseJsonFormatter
from typing_extensions import override

from lora_compose.server.http.request_id import REQUEST_ID

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
CONFIG_FILE = "logging.json"
VLLM_CONFIG = "VLLM_LOGGING_CONFIG_PATH"


class TextFormatter(logging.Formatter):
    """Formats a line as `time LEVEL logger: message field=value`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    @override
    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        return super().formatMessage(record) + fields


class JsonFormatter(BaseJsonFormatter):
    """Formats a line as one JSON object, a traceback in a field. Of `extra` it has only `fields`."""

    @override
    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        log_data["time"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data |= {"level": record.levelname, "logger": record.name, "message": record.getMessage()}
        log_data |= {"pid": record.process, **_fields(record)}
        if "exc_info" in message_dict:
            log_data["exception"] = message_dict["exc_info"]


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of the call, from `extra={"fields": {...}}`, and the id of the current request."""
    own: dict[str, Any] = dict(getattr(record, "fields", {}))
    request_id = REQUEST_ID.get()
    return own if request_id is None else {"request_id": request_id, **own}


def configure(
    log_format: LogFormat, data_dir: Path, log_level: LogLevel = "info", stream: TextIO | None = None
) -> None:
    """Set up logging for this process and, for JSON, for vLLM's others by a file that vLLM reads on import.

    `stream` is for this project's lines and uvicorn's; vLLM's always go to stderr. vLLM logs from WARNING on,
    or from the level of `log_level` debug or error; VLLM_LOGGING_LEVEL and VLLM_LOGGING_CONFIG_PATH win.
    """
    level = log_level.upper()
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING" if log_level == "info" else level)
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # by default stdout
    names = {__name__.partition(".")[0]: level, "uvicorn": "WARNING"}
    if log_format == "json" and VLLM_CONFIG not in os.environ:
        vllm = {"vllm": os.environ["VLLM_LOGGING_LEVEL"]}
        path = data_dir / CONFIG_FILE
        path.write_text(json.dumps(logging_config(log_format, vllm)))
        os.environ[VLLM_CONFIG] = str(path.resolve())
        logging.config.dictConfig(logging_config(log_format, vllm))
    logging.config.dictConfig(logging_config(log_format, names, stream))


def logging_config(
    log_format: LogFormat, levels: dict[str, str], stream: TextIO | None = None
) -> dict[str, Any]:
    """The argument of `logging.config.dictConfig` for these loggers. It is JSON without `stream`."""
    kind = JsonFormatter if log_format == "json" else TextFormatter
    handler: dict[str, Any] = {"class": "logging.StreamHandler", "formatter": "ours"}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"ours": {"()": f"{__name__}.{kind.__name__}"}},
        "handlers": {"stderr": handler if stream is None else {**handler, "stream": stream}},
        "loggers": {
            name: {"handlers": ["stderr"], "level": level, "propagate": False}
            for name, level in levels.items()
        },
    }
