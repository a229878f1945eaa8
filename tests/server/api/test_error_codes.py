"""No code is raised that the document does not know, and each with the status it says."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from lora_compose.adapters.composition.composition import OPTION_NAMES
from lora_compose.server.api.error_codes import ERROR_CODES
from lora_compose.server.errors import CODES, STATUS

ROOT = Path(__file__).resolve().parents[3]
STATUSES = {error.__name__: status for error, status in STATUS.items()}
COMMANDS = {"cli.py", "export.py", "console.py"}
CLIENT = ROOT / "server" / "client"
BEFORE_HTTP = {
    # Refused at the start of a server or by a command that opens the registry itself.
    *("data_dir_in_use", "wrong_database", "no_registry", "read_only"),
    *("schema_too_new", "schema_too_old"),
    # `lora-compose keys` only.
    *("key_not_found", "invalid_role", "invalid_pattern", "invalid_quota"),
}
VARIABLE = {
    "f'invalid_{name}'": {f"invalid_{name}" for name in OPTION_NAMES},
    "_TOO_LARGE[target.name]": {"bad_adapter_config", "weights_too_large"},
    "missing": {"missing_config", "missing_weights"},
    # Of a `Fault`, or of another refusal: found there.
    **dict.fromkeys(("fault.code", "refused.code", "BAD_WEIGHT.code"), frozenset()),
    "code": {"unknown_layer", "unknown_module", "unsupported_feature", "corrupt_weights", "wrong_base"}
    | {"rank_mismatch"},
}


def is_command(path: Path) -> bool:
    """Whether a file's errors are shown by a command and never sent by a server."""
    return path.name in COMMANDS or CLIENT in path.parents


def calls(room: str) -> Iterator[tuple[str, ast.Call]]:
    for path in sorted((ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not is_command(path):
                yield node.func.id, node


def raised() -> Iterator[tuple[int, str]]:
    """(status, code) of every refusal in the code."""
    for room in ("adapters", "server"):
        for name, call in calls(room):
            if name in STATUSES and call.args:
                first = call.args[0]
                literal = {first.value} if isinstance(first, ast.Constant) else VARIABLE[ast.unparse(first)]
                yield from ((STATUSES[name], str(code)) for code in literal)
            elif name == "Fault" and isinstance(call.args[0], ast.Constant):
                yield 400, str(call.args[0].value)
            elif name == "error_response" and len(call.args) > 2 and isinstance(call.args[2], ast.Constant):
                yield int(ast.literal_eval(call.args[0])), str(call.args[2].value)


@pytest.mark.parametrize(
    ("status", "code"), sorted({pair for pair in raised() if pair[1] not in BEFORE_HTTP})
)
def test_every_code_that_is_raised_is_in_the_document(status: int, code: str) -> None:
    assert ERROR_CODES[code].status == status


def test_every_code_of_a_bare_status_is_in_the_document_or_never_sent() -> None:
    never = {"forbidden", "unprocessable", "rate_limited", "timeout"}
    before_any_route = {"request_timeout", "headers_too_large"}
    assert set(CODES.values()) - never - before_any_route <= ERROR_CODES.keys()


def test_no_code_of_the_document_is_made_up() -> None:
    found = {code for _, code in raised()} | set(CODES.values())
    assert ERROR_CODES.keys() <= found
