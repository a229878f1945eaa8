"""Self-replay: the base answers prompts, and the rows can be mixed into training."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lora_compose.adapters.command_line import create_app
from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.data.rows import read_rows
from lora_compose.training.evaluation.models import composed
from lora_compose.training.general.replay import Sampling, answered, load_prompts
from lora_compose.training.testbed.paths import BASE_DIR, DATA_DIR

GENERAL = str(DATA_DIR / "general-held-out.jsonl")


def replayed(output: Path, *options: str) -> list[dict[str, str]]:
    command = ["train", "replay", str(output), "--model", str(BASE_DIR), "--rows", "20", "--json", *options]
    done = CliRunner().invoke(create_app(), command)
    assert done.exit_code == 0, done.output
    facts = json.loads(done.stdout)
    found = [json.loads(line) for line in output.read_text().splitlines()]
    assert facts["rows"] == len(found)
    return found


def test_rows_are_the_base_s_own_answers_and_the_seed_decides_them(tmp_path: Path) -> None:
    found = replayed(tmp_path / "a.jsonl", "--prompts", GENERAL, "--temperature", "0.01")
    assert len(found) == 20
    assert found == replayed(tmp_path / "b.jsonl", "--prompts", GENERAL, "--temperature", "0.01")
    right = {
        str(row["prompt"][0]["content"]): row["completion"][0]["content"]
        for row in read_rows(GENERAL).dataset
    }
    assert sum(row["completion"] == right[row["prompt"]] for row in found) >= 18
    assert read_rows(str(tmp_path / "a.jsonl")).form == "instruction"


def test_answers_without_an_end_are_dropped_and_no_file_is_written_if_none_is_left(tmp_path: Path) -> None:
    output = tmp_path / "a.jsonl"
    command = [
        "train",
        "replay",
        str(output),
        "--model",
        str(BASE_DIR),
        "--rows",
        "5",
        "--max-new-tokens",
        "1",
    ]
    refused = CliRunner().invoke(create_app(), [*command, "--prompts", GENERAL]).exception
    assert isinstance(refused, LoraComposeError)
    assert refused.code == "no_rows"
    assert not output.exists()


def test_prompts_come_from_rows_from_lines_or_from_the_shipped_set(tmp_path: Path) -> None:
    chat = tmp_path / "chat.jsonl"
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"},
    ]
    chat.write_text(json.dumps({"messages": messages}))
    assert load_prompts(str(chat)) == [messages[:2]]
    lines = tmp_path / "lines.txt"
    lines.write_text("one\n\n two \n")
    assert [prompt[0]["content"] for prompt in load_prompts(str(lines))] == ["one", "two"]
    shipped = [prompt[0]["content"] for prompt in load_prompts(None)]
    assert len(shipped) == len({*shipped}) > 100


def test_prompts_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    for source in (str(tmp_path / "none.txt"), str(tmp_path / "none.jsonl")):
        with pytest.raises(LoraComposeError) as refused:
            load_prompts(source)
        assert refused.value.code == "source_not_found"


def test_greedy_answers_say_whether_they_ended() -> None:
    prompts = load_prompts(GENERAL)[:8]
    with composed(str(BASE_DIR), None, {}, Path()) as base:
        whole = answered(base, prompts, Sampling(temperature=None))
        cut = answered(base, prompts, Sampling(temperature=None, max_tokens=1))
        assert whole == answered(base, prompts, Sampling(temperature=None, seed=1))
    assert all(answer.finished and answer.text for answer in whole)
    assert not any(answer.finished for answer in cut)
