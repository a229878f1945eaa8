"""Real runs of a few steps: TRL, PEFT and bitsandbytes on the embedded base."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from lora_compose.adapters.errors import LoraComposeError
from lora_compose.training.run import FinishedRun, train
from tests.training.recipes import HELD_OUT, PREFERENCES, TASKS, recipe


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return train(recipe(tmp_path_factory.mktemp("sft"), **TASKS))


def test_a_run_leaves_an_adapter_its_record_and_its_curves(trained: FinishedRun) -> None:
    assert sorted(path.name for path in trained.adapter.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    record = json.loads((trained.directory / "run.json").read_text())
    assert record["status"] == "finished"
    assert record["settings"]["model"]["lora_r"] == 4
    assert record["versions"]["trl"]
    assert len(record["data"]["sources"][0]["digest"]) == 64
    assert record["scores"].keys() == {"domain", "general", "forgetting"}
    assert record["base_scores"]["general"] > 0.9
    assert (trained.directory / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_the_loss_is_on_the_answer_alone(trained: FinishedRun) -> None:
    assert trained.record.prepared is not None
    text, rest = trained.record.prepared.example.split("⟦")
    assert "roll" in text
    assert rest.endswith("</s>⟧")


def test_a_directory_with_a_run_is_not_overwritten_without_the_option(trained: FinishedRun) -> None:
    again = recipe(trained.directory.parent, **TASKS)
    with pytest.raises(LoraComposeError, match="--overwrite") as refused:
        train(again)
    assert refused.value.code == "run_exists"


def losses(run: FinishedRun) -> list[float]:
    return [entry["loss"] for entry in run.record.history if "loss" in entry]


def test_a_run_that_was_interrupted_ends_as_one_that_was_not(tmp_path: Path) -> None:
    saving: dict[str, Any] = {
        "save_strategy": "steps",
        "save_steps": 3,
        "lora_dropout": 0.1,
    }
    whole = train(recipe(tmp_path / "whole", **saving))
    interrupted = recipe(tmp_path / "interrupted", **saving)
    with pytest.MonkeyPatch.context() as patch:  # the process is gone after the fourth step
        patch.setattr("transformers.trainer_callback.DefaultFlowCallback.on_step_end", die_after_four)
        with pytest.raises(KeyboardInterrupt):
            train(interrupted)
    resumed = train(recipe(tmp_path / "interrupted", **saving), resume=True)
    assert losses(resumed) == pytest.approx(losses(whole), abs=1e-5)
    first, second = (load_file(run.adapter / "adapter_model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(first[name], second[name]) for name in first)


def die_after_four(self: Any, args: Any, state: Any, control: Any, **_: Any) -> Any:
    if state.global_step == 4:
        raise KeyboardInterrupt
    control.should_save = state.global_step % 3 == 0
    control.should_log = True
    control.should_training_stop = state.global_step >= state.max_steps
    return control


def test_a_run_is_resumed_with_the_settings_it_began_with(trained: FinishedRun) -> None:
    with pytest.raises(LoraComposeError, match="learning_rate") as refused:
        train(recipe(trained.directory.parent, **TASKS, learning_rate=1e-3), resume=True)
    assert refused.value.code == "other_run"


def test_early_stopping_stops_and_keeps_the_best_checkpoint(tmp_path: Path) -> None:
    run = train(
        recipe(
            tmp_path,
            domain=few(tmp_path, 4),
            held_out=HELD_OUT,
            max_steps=60,
            learning_rate=2e-2,
            eval_strategy="steps",
            eval_steps=3,
            save_strategy="steps",
            save_steps=3,
            load_best_model_at_end=True,
            metric_for_best_model="eval_loss",
            patience=2,
        )
    )
    found = [entry["eval_loss"] for entry in run.record.history if "eval_loss" in entry]
    assert run.record.steps < 60
    assert run.record.best.metric == pytest.approx(min(found))
    best = run.directory / str(run.record.best.checkpoint) / "adapter_model.safetensors"
    kept = load_file(run.adapter / "adapter_model.safetensors")
    assert all(torch.equal(kept[name], tensor) for name, tensor in load_file(best).items())


def few(directory: Path, count: int) -> list[str]:
    """So few rows that the model learns them exactly."""
    directory.mkdir(parents=True, exist_ok=True)
    lines = Path(recipe(directory).data.domain[0]).read_text().splitlines()[:count]
    (directory / "few.jsonl").write_text("\n".join(lines))
    return [str(directory / "few.jsonl")]


def test_qlora_trains_on_four_bits_and_leaves_a_float_adapter(tmp_path: Path) -> None:
    four_bits: dict[str, Any] = {"load_in_4bit": True, "use_bnb_nested_quant": True}
    run = train(recipe(tmp_path / "alone", **four_bits))
    scored: dict[str, Any] = {"held_out": HELD_OUT, "eval_strategy": "steps", "eval_steps": 2, **TASKS}
    evaluated = train(recipe(tmp_path / "evaluated", **four_bits, **scored))
    assert losses(run)[-1] < losses(run)[0]
    assert losses(evaluated) == pytest.approx(losses(run), abs=1e-5)  # to evaluate changes nothing
    weights = load_file(run.adapter / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}


@pytest.mark.parametrize("reference", ["start", "base"])
def test_dpo_goes_on_from_an_adapter_and_leaves_one(
    trained: FinishedRun, tmp_path: Path, reference: str
) -> None:
    start: dict[str, Any] = {"init_adapter": str(trained.adapter), "reference": reference}
    run = train(recipe(tmp_path, "dpo", **PREFERENCES, **start, learning_rate=1e-3))
    assert sorted(path.name for path in run.adapter.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    first = run.record.history[0]["rewards/margins"]
    assert (first == pytest.approx(0, abs=1e-4)) == (reference == "start")
    before, after = (load_file(each / "adapter_model.safetensors") for each in (trained.adapter, run.adapter))
    assert before.keys() == after.keys()


def test_all_weights_can_be_trained_and_then_there_is_no_adapter(tmp_path: Path) -> None:
    run = train(recipe(tmp_path, use_peft=False, max_steps=2, learning_rate=1e-4))
    assert (run.directory / "model" / "model.safetensors").exists()
    assert not run.adapter.exists()


def test_rows_of_another_method_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoraComposeError, match="preference rows, but sft trains on") as refused:
        train(recipe(tmp_path, **PREFERENCES))
    assert refused.value.code == "wrong_form"


def test_data_without_an_end_token_or_without_answer_tokens_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoraComposeError) as refused:
        train(recipe(tmp_path / "short", max_length=8))
    assert refused.value.code in ("no_end_learnt", "nothing_to_learn")
