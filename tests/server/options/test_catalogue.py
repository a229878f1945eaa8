"""Every option and every variable of vLLM has been decided on: an upgrade cannot add one in silence."""

import re
from collections import Counter
from pathlib import Path

import vllm

from lora_compose.server.config import ServerConfig
from lora_compose.server.engine.frontend.option_catalogue import as_text, catalogue
from lora_compose.server.options import decisions, environment
from lora_compose.server.options.catalogue import FILE, options, variables
from lora_compose.server.options.http_options import HttpOptions
from lora_compose.server.options.page import page

ROOT = Path(__file__).resolve().parents[3]
FRONT = ("entrypoints", "plugins", "renderers", "tool_parsers", "reasoning", "parser", "logging_utils")
"""The parts of vLLM around its engine."""
READ_BY_THE_COMMAND = {"config"}


def test_the_catalogue_is_what_the_installed_vllms_parser_has() -> None:
    assert as_text(catalogue()) == FILE.read_text()


def test_every_option_of_vllm_is_in_exactly_one_table() -> None:
    tables = [decisions.SERVER, decisions.HANDLERS, decisions.ENGINE, decisions.REFUSED]
    counts = Counter(name for table in tables for name in table)
    assert counts == Counter(dict.fromkeys(options(), 1))


def test_what_this_server_honours_is_an_option_of_its_own() -> None:
    singular = {"api_keys": "api_key"}
    fields = [*ServerConfig.__dataclass_fields__, *HttpOptions.__dataclass_fields__]
    own = {singular.get(field, field).replace("_", "-") for field in fields}
    assert own >= decisions.SERVER - READ_BY_THE_COMMAND


def test_no_other_option_of_ours_hides_one_of_vllm() -> None:
    fields = [*ServerConfig.__dataclass_fields__, *HttpOptions.__dataclass_fields__]
    own = {field.replace("_", "-") for field in fields}
    assert own & options().keys() <= decisions.SERVER


def test_options_of_elsewhere_are_not_options_here() -> None:
    assert not decisions.ELSEWHERE.keys() & options().keys()


def test_every_variable_that_vllm_reads_around_its_engine_is_decided_on() -> None:
    package = Path(vllm.__file__).parent
    files = [package / "logger.py", *(file for part in FRONT for file in (package / part).rglob("*.py"))]
    named = {name for file in files for name in re.findall(r"\b[A-Z][A-Z0-9_]{3,}\b", file.read_text())}
    tables = [environment.SERVER, environment.HANDLERS, environment.ENGINE, environment.OTHER_COMMANDS]
    counts = Counter(name for table in [*tables, environment.REFUSED] for name in table)
    assert named & variables() <= counts.keys() <= variables()
    assert set(counts.values()) == {1}


def test_the_page_in_the_docs_is_written_from_the_tables() -> None:
    written = (ROOT / "docs" / "vllm-options.md").read_text()
    assert written == page(), "python -m lora_compose.server.options.page > docs/vllm-options.md"
