"""Bases as people have them: without a pad token, without a template, with another end of a turn."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.dataset import load_examples
from lora_compose.training.evaluation.evaluate import EvaluationRequest, evaluate_offline
from lora_compose.training.evaluation.tasks import load_tasks
from lora_compose.training.publishing import check_adapter, check_target
from lora_compose.training.recipe_options import PublishArguments
from lora_compose.training.run import prepare, train
from lora_compose.training.testbed.paths import BASE_DIR
from tests.training.recipes import HELD_OUT, recipe

TEMPLATE = "chat_template.jinja"
CONFIG = "tokenizer_config.json"


def edited(directory: Path, name: str, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((directory / name).read_text())
    change(content)
    (directory / name).write_text(json.dumps(content))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A copy of the embedded base."""
    return Path(shutil.copytree(BASE_DIR, tmp_path / "base"))


def refusal(directory: Path, **values: Any) -> LoraComposeError:
    with pytest.raises(LoraComposeError) as refused:
        prepare(recipe(directory, **values))
    return refused.value


def test_a_base_without_a_pad_token_is_scored_and_trained(base: Path, tmp_path: Path) -> None:
    edited(base, CONFIG, lambda config: config.pop("pad_token"))
    tasks = load_tasks(HELD_OUT, "domain", limit=4)
    report = evaluate_offline(str(base), None, {}, tmp_path, EvaluationRequest(tasks, tasks))
    same = evaluate_offline(str(BASE_DIR), None, {}, tmp_path, EvaluationRequest(tasks, tasks))
    assert report.scores == same.scores
    run = train(
        recipe(tmp_path, model_name_or_path=str(base), max_steps=1, domain_tasks=HELD_OUT, score_limit=4)
    )
    assert "domain" in run.scores


def test_a_base_without_a_chat_template_is_refused_with_what_to_do(base: Path, tmp_path: Path) -> None:
    (base / TEMPLATE).rename(tmp_path / "own.jinja")
    for own in ({}, {"chat_template_path": str(tmp_path / "own.jinja")}):
        refused = refusal(tmp_path, model_name_or_path=str(base), **own)
        assert refused.code == "chat_template_failed"
        assert "chat_template.jinja" in refused.message
    tasks = load_tasks(HELD_OUT, "domain", limit=1)
    with pytest.raises(LoraComposeError, match="no chat template"):
        evaluate_offline(str(base), None, {}, tmp_path, EvaluationRequest(tasks))


def test_a_template_that_the_server_would_not_use_is_refused(base: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text((base / TEMPLATE).read_text().replace("eos_token", "'x' + eos_token"))
    refused = refusal(tmp_path, model_name_or_path=str(base), chat_template_path=str(own))
    assert refused.code == "chat_not_served"
    own.write_text("{# the same #}" + (base / TEMPLATE).read_text())
    prepare(recipe(tmp_path, model_name_or_path=str(base), chat_template_path=str(own)))


def test_a_template_that_refuses_a_row_is_one_line(base: Path, tmp_path: Path) -> None:
    template = (base / TEMPLATE).read_text()
    stop = "{{ raise_exception('System role not supported') }}"
    (base / TEMPLATE).write_text("{% if messages[0]['role'] == 'system' %}" + stop + "{% endif %}" + template)
    plain = [{"role": "user", "content": "say a"}, {"role": "assistant", "content": "a"}]
    rows = [{"messages": plain}, {"messages": [{"role": "system", "content": "be brief"}, *plain]}]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused = refusal(tmp_path, model_name_or_path=str(base), domain=[str(data)])
    assert refused.code == "chat_template_failed"
    assert "System role not supported" in refused.message


def test_answers_must_end_with_a_token_at_which_a_server_stops(base: Path, tmp_path: Path) -> None:
    """As with Qwen2.5's base, whose turns end with another token than its texts."""
    other = "<unk>" if "<unk>" in (base / "tokenizer.json").read_text() else "<s>"
    edited(base, CONFIG, lambda config: config.update(eos_token=other))
    (base / TEMPLATE).write_text((base / TEMPLATE).read_text().replace("eos_token", "'</s>'"))
    for name in ("generation_config.json", "config.json"):
        edited(base, name, lambda config: config.update(eos_token_id=1))
    assert refusal(tmp_path, model_name_or_path=str(base)).code == "no_end_learnt"
    refused = refusal(tmp_path, model_name_or_path=str(base), eos_token="</s>")
    assert refused.code == "chat_not_served"
    edited(base, "generation_config.json", lambda config: config.update(eos_token_id=[1, 2]))
    prepare(recipe(tmp_path, model_name_or_path=str(base)))


def test_settings_that_trl_or_peft_refuse_are_one_line(tmp_path: Path) -> None:
    assert refusal(tmp_path, lora_target_modules=["nothing"]).code == "invalid_recipe"
    data = tmp_path / "one.jsonl"
    data.write_text('{"prompt": "say a", "completion": "a"}\n')
    with pytest.raises(LoraComposeError, match=r"held_out_share 0\.1 of 1 rows"):
        load_examples(recipe(tmp_path, domain=[str(data)], held_out_share=0.1, eval_strategy="steps"))


def test_what_the_registry_would_refuse_is_refused_before_the_first_step(tmp_path: Path) -> None:
    target = PublishArguments(publish="roll", data_dir=str(tmp_path / "data"))
    with pytest.raises(LoraComposeError, match="modules_to_save") as refused:
        train(
            recipe(tmp_path, lora_modules_to_save=["norm"]),
            check=lambda run: check_adapter(run, target),
        )
    assert refused.value.code == "unsupported_feature"
    assert not (tmp_path / "run" / "run.json").exists()
    check_adapter(prepare(recipe(tmp_path)), target)


def test_a_target_that_cannot_be_reached_is_refused_before_the_base_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(LoraComposeError) as refused:
        check_target(PublishArguments(publish="roll", publish_url="http://127.0.0.1:9"))
    assert refused.value.code == "server_unreachable"
    (tmp_path / "file").write_text("")
    with pytest.raises(LoraComposeError):
        check_target(PublishArguments(publish="roll", data_dir=str(tmp_path / "file")))
    check_target(PublishArguments(publish="roll", data_dir=str(tmp_path / "data")))


def test_a_right_answer_is_never_cut_off_by_default_and_counted_if_it_is(tmp_path: Path) -> None:
    file = tmp_path / "long.jsonl"
    file.write_text(json.dumps({"prompt": "say a", "completion": "a" * 100}) + "\n")
    tasks = load_tasks([str(file)], "domain")
    cut = evaluate_offline(str(BASE_DIR), None, {}, tmp_path, EvaluationRequest(tasks, max_tokens=40))
    whole = evaluate_offline(str(BASE_DIR), None, {}, tmp_path, EvaluationRequest(tasks))
    assert [task.too_long for task in (*cut.tasks, *whole.tasks)] == [1, 0]
    prepared = prepare(recipe(tmp_path, domain_tasks=[str(file)], score_tokens=40))
    assert "more tokens than score_tokens (40)" in prepared.scorer.remarks()[0]
