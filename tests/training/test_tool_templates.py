"""Rows with tools are trained as the base's template writes them, and refused if it leaves tools out."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.evaluation.tasks import load_tasks
from lora_compose.training.run import prepare
from lora_compose.training.testbed.paths import BASE_DIR
from tests.training.data import tool_rows as given
from tests.training.data.written_rows import written
from tests.training.recipes import recipe

TEMPLATE = """{%- for tool in tools or [] %}<|system|>{{ tool | tojson }}{{ eos_token }}{% endfor %}
{%- for m in messages %}{{ '<|' + m['role'] + '|>' }}{{ m['content'] }}
{%- for c in m.tool_calls or [] %}[{{ c.function.name }} {{ c.function.arguments | tojson }}]{% endfor %}
{{- eos_token if m['role'] == 'assistant' }}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A copy of the embedded base, whose chat template writes tools."""
    directory = Path(shutil.copytree(BASE_DIR, tmp_path / "base"))
    (directory / "chat_template.jinja").write_text(TEMPLATE)
    return directory


def learned(trainer: Any) -> list[str]:
    """The text with a loss, of each row."""
    return [
        trainer.processing_class.decode([label for label in labels if label != -100])
        for labels in trainer.train_dataset["labels"]
    ]


@pytest.mark.parametrize("record", [given.OPENAI, given.OPENAI_OF_BEFORE, given.SHAREGPT])
def test_only_the_calls_and_answers_of_the_assistant_have_a_loss(
    record: dict[str, Any], base: Path, tmp_path: Path
) -> None:
    source = written(tmp_path / "rows.jsonl", [record])
    run = prepare(recipe(tmp_path, model_name_or_path=str(base), domain=[source]))
    call, answer = learned(run.trainer)
    assert "forecast" in call
    assert "Paris" in call
    assert "weather" not in call
    assert "clear" in answer
    assert "sky" not in answer
    assert "forecast" not in answer


def test_a_template_that_leaves_out_tools_is_refused_with_the_place(tmp_path: Path) -> None:
    source = written(tmp_path / "rows.jsonl", [{"messages": [given.USER, given.ANSWER]}, given.OPENAI])
    with pytest.raises(LoraComposeError, match="leaves out 'forecast'") as refused:
        prepare(recipe(tmp_path, domain=[source]))
    assert refused.value.code == "chat_template_failed"
    assert f"{source}:2: " in refused.value.message
    assert "Qwen2.5" in refused.value.message


def test_a_pair_with_a_call_is_trained_with_its_tools(base: Path, tmp_path: Path) -> None:
    source = written(tmp_path / "rows.jsonl", [given.PREFERENCE] * 4)
    values = {"model_name_or_path": str(base), "domain": [source]}
    run = prepare(recipe(tmp_path, method="dpo", **values))
    (prompt, chosen) = (run.trainer.train_dataset[0][name] for name in ("prompt_ids", "chosen_ids"))
    decode = run.trainer.processing_class.decode
    assert "city" in decode(prompt)
    assert "Paris" in decode(chosen)


def test_rows_with_tools_are_no_questions(tmp_path: Path) -> None:
    source = written(tmp_path / "rows.jsonl", [given.OPENAI])
    with pytest.raises(LoraComposeError, match="cannot be scored"):
        load_tasks([source], "domain")
