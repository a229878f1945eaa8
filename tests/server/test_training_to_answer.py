"""From data to an answer: one command trains and publishes to a running server, and a client uses it."""

from pathlib import Path

import openai
from typer.testing import CliRunner

from lora_compose.adapters.command_line import create_app
from tests.running_server import RunningServer
from tests.training.recipes import TASKS, written


def test_an_adapter_answers_as_soon_as_its_training_command_has_ended(
    server: RunningServer, client: openai.OpenAI, tmp_path: Path
) -> None:
    file = written(tmp_path, max_steps=60, per_device_train_batch_size=24, lora_r=8, **TASKS)
    options = ["--publish", "trained", "--publish_url", server.url, "--alias", "prod"]
    gate = ["--require", "domain>=0,forgetting<=1"]
    ended = CliRunner().invoke(create_app(), ["train", "sft", str(file), *options, *gate])
    assert ended.exit_code == 0, ended.output
    reply = client.chat.completions.create(
        model="trained@prod", messages=[{"role": "user", "content": "roll table"}], temperature=0
    )
    assert reply.model == "trained@1"
    assert sorted(reply.choices[0].message.content or "") != []
    shown = CliRunner().invoke(create_app(), ["adapters", "show", "trained@prod", "--url", server.url])
    assert "scores.forgetting" in shown.output
    assert "roll.jsonl" in shown.output
