"""`run.json` as a typed document, and older files without a schema number."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.publishing import lineage_of
from lora_compose.training.run_record import (
    SCHEMA,
    FinishedRecord,
    RunRecord,
    check_same_run,
    read_record,
    write_record,
)
from lora_compose.training.run_report import run_table

OLD = Path(__file__).with_name("run-without-schema.json")


@pytest.fixture
def old(tmp_path: Path) -> FinishedRecord:
    shutil.copy(OLD, tmp_path / "run.json")
    record = read_record(tmp_path)
    assert isinstance(record, FinishedRecord)
    return record


def test_a_file_without_a_schema_number_is_read_whole(old: FinishedRecord) -> None:
    assert old.schema_number == 0
    assert old.to_dict() == json.loads(OLD.read_text())
    assert old.settings.model["lora_r"] == 8
    assert lineage_of(old, [])["data"][1]["source"] == "roll.jsonl"
    assert run_table(old).row_count == 3


def test_what_is_written_is_read_back_and_has_the_schema_number(old: FinishedRecord, tmp_path: Path) -> None:
    record = old.model_copy(update={"schema_number": SCHEMA})
    write_record(tmp_path, record)
    assert json.loads((tmp_path / "run.json").read_text())["schema"] == SCHEMA
    assert read_record(tmp_path) == record


def test_a_run_that_did_not_end_has_no_outcome(old: FinishedRecord, tmp_path: Path) -> None:
    outcome = ("seconds", "peak_memory_bytes", "steps", "epochs", "best", "history", "scores")
    content = {name: value for name, value in old.to_dict().items() if name not in outcome}
    (tmp_path / "run.json").write_text(json.dumps(content | {"status": "running"}))
    record = read_record(tmp_path)
    assert type(record) is RunRecord
    assert record.finished(**{name: old.to_dict()[name] for name in outcome}) == old


def test_another_setting_is_another_run(old: FinishedRecord, tmp_path: Path) -> None:
    check_same_run(tmp_path, old, old)
    settings = old.settings.model_copy(update={"model": old.settings.model | {"lora_r": 9}})
    with pytest.raises(LoraComposeError, match=r"different values of lora_r\.") as refused:
        check_same_run(tmp_path, old, old.model_copy(update={"settings": settings}))
    assert refused.value.code == "other_run"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"schema": SCHEMA + 1},
            f"schema {SCHEMA + 1}, but this version of lora-compose reads only up to {SCHEMA}",
        ),
        ({"schema": "new"}, "schema new"),
        ({"steps": "many"}, "steps: Input should be a valid integer"),
        ({"data": {}}, r"data\.sources: Field required"),
        ({"status": "lost"}, "status: Input should be 'running' or 'finished'"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_field(
    old: FinishedRecord, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    (tmp_path / "run.json").write_text(json.dumps(old.to_dict() | change))
    with pytest.raises(LoraComposeError, match=message) as refused:
        read_record(tmp_path)
    assert refused.value.code == "bad_run_record"


@pytest.mark.parametrize("content", ["", "[]", "{"])
def test_a_file_that_is_not_an_object_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(LoraComposeError) as refused:
        read_record(tmp_path)
    assert refused.value.code == "bad_run_record"
