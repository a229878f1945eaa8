"""Weights are searched with a real server. A stack with other weights needs no new build."""

from lora_compose.adapters.composition.grammar import parse
from lora_compose.server.client.chat import ChatClient
from lora_compose.training.evaluation.judges.question import Question
from lora_compose.training.evaluation.tasks import Task
from lora_compose.training.testbed.language import answer, prompts
from lora_compose.training.tuning.tune import tune
from tests.running_server import RunningServer


def test_tuned_weights_answer_more_of_the_rows_nobody_searched_on(server: RunningServer) -> None:
    questions = tuple(
        Question([{"role": "user", "content": text}], answer("roll", ["wrap"], word))
        for text, word in prompts(32, seed=77, skill="roll")
    )
    task = Task("roll+wrap", "domain", questions)
    with ChatClient(server.url) as client:
        tuned = tune(parse("roll+wrap"), task, client, seed=0)
    assert tuned.tuned_after > tuned.tuned_before
    assert tuned.pays
    assert tuned.trials < 60
