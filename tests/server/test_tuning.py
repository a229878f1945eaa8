"""Weights are searched by asking a real server; a stack at other weights needs nothing built there."""

from adapters.composition_grammar import parse
from server.client.chat import ChatClient
from tests.running_server import RunningServer
from training.testbed.tasks import answer, prompts
from training.tuning.rows import ValidationRow
from training.tuning.tune import tune


def test_tuned_weights_answer_more_of_the_rows_nobody_searched_on(server: RunningServer) -> None:
    rows = [
        ValidationRow((("user", text),), answer("roll", ["wrap"], word))
        for text, word in prompts(32, seed=77, skill="roll")
    ]
    with ChatClient(server.url) as client:
        tuned = tune(parse("roll+wrap"), rows, client, seed=0)
    assert tuned.tuned_after > tuned.tuned_before
    assert tuned.pays
    assert tuned.trials < 60
