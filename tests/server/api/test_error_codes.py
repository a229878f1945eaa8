"""Every code that is raised is in the document, with the same status."""

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from lora_compose.adapters.composition.composition import OPTION_NAMES
from lora_compose.adapters.errors import Code
from lora_compose.server.api.error_codes import ERROR_CODES
from lora_compose.server.errors import CODES, STATUS

ROOT = Path(__file__).resolve().parents[3]
STATUSES = {error.__name__: status for error, status in STATUS.items()}
VARIABLE = {
    "Code(f'invalid_{name}')": {Code(f"invalid_{name}") for name in OPTION_NAMES},
    "_TOO_LARGE[target.name]": {Code.BAD_ADAPTER_CONFIG, Code.WEIGHTS_TOO_LARGE},
    "missing": {Code.MISSING_CONFIG, Code.MISSING_WEIGHTS},
    "MISSING[missing]": {Code.MISSING_CONFIG, Code.MISSING_WEIGHTS},
    "MISSING[CONFIG_FILE]": {Code.MISSING_CONFIG},
    "error.code": {Code.MODEL_NOT_FOUND},
    # The code of a `Fault` or of another refusal. It is found there.
    **dict.fromkeys(("fault.code", "refused.code", "BAD_WEIGHT.code"), frozenset()),
    "code": {Code.UNKNOWN_LAYER, Code.UNKNOWN_MODULE, Code.UNSUPPORTED_FEATURE, Code.CORRUPT_WEIGHTS}
    | {Code.WRONG_BASE, Code.RANK_MISMATCH},
}


def calls(room: str) -> Iterator[tuple[str, ast.Call]]:
    for path in sorted((ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                yield node.func.id, node


def codes_of(argument: ast.expr) -> Iterable[Code]:
    """The codes that a call can have; empty for codes of commands and of other servers."""
    text = ast.unparse(argument)
    if text.startswith("Code."):
        return (Code[text.removeprefix("Code.")],)
    if text.startswith(("CommandCode.", "ServerCode(")):
        return ()
    return VARIABLE[text]


def raised() -> Iterator[tuple[int, Code]]:
    """The (status, code) of every refusal in the source."""
    for room in ("adapters", "server"):
        for name, call in calls(room):
            if name in STATUSES and call.args:
                yield from ((STATUSES[name], code) for code in codes_of(call.args[0]))
            elif name == "Fault":
                yield from ((400, code) for code in codes_of(call.args[0]))
            elif name == "error_response" and len(call.args) > 2 and isinstance(call.args[0], ast.Constant):
                yield from ((int(ast.literal_eval(call.args[0])), code) for code in codes_of(call.args[2]))


@pytest.mark.parametrize(("status", "code"), sorted(set(raised())))
def test_every_code_that_is_raised_has_its_status_in_the_document(status: int, code: Code) -> None:
    assert ERROR_CODES[code].status == status


def test_the_document_has_every_code_but_those_that_no_route_sends() -> None:
    never = {Code.FORBIDDEN, Code.UNPROCESSABLE, Code.RATE_LIMITED, Code.TIMEOUT}
    before_any_route = {Code.REQUEST_TIMEOUT, Code.HEADERS_TOO_LARGE}
    assert ERROR_CODES.keys() == set(Code) - never - before_any_route


def test_no_code_of_the_document_is_made_up() -> None:
    found = {code for _, code in raised()} | set(CODES.values())
    assert ERROR_CODES.keys() <= found
