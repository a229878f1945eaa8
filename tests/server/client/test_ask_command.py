import json
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from lora_compose.adapters.command_line import create_app
from lora_compose.adapters.composition.grammar import parse
from lora_compose.adapters.errors import InvalidRequest
from lora_compose.server.client.ask_command import composition_text
from tests.adapters.http_server import serving
from tests.server.client.chat_server import CHAT_APP


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(CHAT_APP) as at:
        yield at


def test_json_is_one_object_and_plain_output_is_the_answer_alone(url: str) -> None:
    arguments = ["ask", "a b", "--url", url, "--adapters", "sql+polite", "--method", "svd", "--rank", "4"]
    answer = json.loads(CliRunner().invoke(create_app(), [*arguments, "--json"]).stdout)
    assert answer["model"] == "svd(polite+sql,rank=4)"
    assert answer["text"] == "ab"
    assert CliRunner().invoke(create_app(), arguments).stdout == "ab\n"


def test_a_method_is_put_round_the_adapters() -> None:
    text = composition_text("sql:0.7+polite@2", "ties", rank=8, density=0.3)
    assert parse(text) == parse("ties(polite@2+sql:0.7,density=0.3,rank=8)")


@pytest.mark.parametrize(
    ("adapters", "method", "rank", "code"),
    [
        ("svd(a+b)", "svd", None, "invalid_composition"),
        ("a+b", None, 8, "missing_method"),
        ("a+b", "blend", None, "unknown_method"),
        ("a+b", "ties", None, "missing_density"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    adapters: str, method: str | None, rank: int | None, code: str
) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        composition_text(adapters, method, rank)
    assert refusal.value.code == code
