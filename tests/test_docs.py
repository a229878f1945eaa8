"""The documentation and the code name the same flags, variables, codes, methods and routes."""

import re
from pathlib import Path

import pytest
from starlette.routing import Route

from lora_compose.adapters.composition.composition import METHOD_NAMES
from lora_compose.adapters.errors import Code, CommandCode
from lora_compose.benchmarks.serving.report.tables import markdown, side_by_side
from lora_compose.benchmarks.serving.results.advice import advise
from lora_compose.benchmarks.serving.results.crossovers import crossovers
from lora_compose.benchmarks.serving.results.document import read_result
from lora_compose.benchmarks.serving.results.summary import summarize
from lora_compose.server.api.error_codes import ERROR_CODES
from lora_compose.server.api.operations import OPERATIONS
from lora_compose.server.app import routes
from lora_compose.server.config import ServerConfig
from lora_compose.server.fusion.policy import FusePolicySettings
from lora_compose.server.openapi_page import every_operation
from lora_compose.server.options.http_options import HttpOptions
from tests.docs import command_page, pictures

RESULTS = ("embedded", "311M")
ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))))
BETWEEN_OUR_PROCESSES = {"LORA_COMPOSE_START_FAILURE"}
"""A variable that the server sets for its own children."""
FLAG_NAMES = {"adapter_roots": "adapter_root", "api_keys": "api_key", "accept_bases": "accept_base"}


def page_of(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    assert page_of("reference/commands.md") == command_page.page()


def test_every_serve_flag_is_on_the_page_of_commands_and_the_other_way_round() -> None:
    """The flags of vLLM's HTTP server are options of the command too."""
    own = (
        ServerConfig.__dataclass_fields__.keys() - {"fuse_settings", "http"}
        | HttpOptions.__annotations__.keys()
    )
    fuse = {f"fuse_{name}" for name in FusePolicySettings.__dataclass_fields__}
    fields = {FLAG_NAMES.get(name, name) for name in own} | fuse
    flags = {f"--{name.replace('_', '-')}" for name in fields}
    section = page_of("reference/commands.md").partition("## `lora-compose serve`")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`--[^|]+) \|", section, re.MULTILINE)
    assert set(re.findall(r"--[a-z0-9-]+", " ".join(rows))) == flags


def test_every_variable_of_ours_is_on_the_page_of_the_environment() -> None:
    files = (path for part in ("adapters", "server", "training") for path in (ROOT / part).rglob("*.py"))
    read = {name for path in files for name in re.findall(r"LORA_COMPOSE_[A-Z_]+", path.read_text())}
    named = set(re.findall(r"LORA_COMPOSE_[A-Z_]+", page_of("reference/environment.md")))
    assert read - BETWEEN_OUR_PROCESSES == named


def test_every_method_is_in_the_table_of_methods() -> None:
    text = page_of("explanation/compositions.md")
    table = text.partition("## A merge is one new adapter")[2].partition("\n\nAll methods")[0]
    assert set(METHOD_NAMES) <= set(re.findall(r"`([a-z_]+)`", table))


def test_every_path_of_the_operator_s_table_exists() -> None:
    paths = {route.path for route in routes() if isinstance(route, Route)}
    table = page_of("operations.md").partition("## Paths for operators")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(/[a-z0-9_/]+)`", table))
    assert named
    assert named <= paths


def test_every_code_in_the_solutions_exists() -> None:
    text = page_of("troubleshooting.md")
    cells = re.findall(r"^\| (?:\d+ )?((?:`[a-z_]+`(?:, )?)+) \|", text, re.MULTILINE)
    codes = set(re.findall(r"`([a-z_]+)`", " ".join(cells)))
    assert codes
    assert codes <= {*map(str, Code), *map(str, CommandCode)}


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_that_a_page_names_exists(page: str) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z0-9-]+)|^make ([a-z0-9-]+)", (ROOT / page).read_text())) <= {
        pair for target in targets for pair in ((target, ""), ("", target))
    }


@pytest.mark.parametrize("page", PAGES)
def test_every_linked_file_exists(page: str) -> None:
    for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", (ROOT / page).read_text()):
        assert (ROOT / page).parent.joinpath(link).exists(), link


def test_the_examples_of_http_are_of_every_route() -> None:
    named = re.findall(r"^## `([A-Z]+) (\S+)`$", page_of("reference/http-examples.md"), re.MULTILINE)
    assert sorted(named) == sorted((route.method, route.path) for route in every_operation())


def test_the_examples_of_http_answer_as_the_operations_say() -> None:
    pattern = r"^## `([A-Z]+) (\S+)`$.*?^Status (\d+)\.$(.*?)(?=^## |\Z)"
    found = re.findall(pattern, page_of("reference/http-examples.md"), re.MULTILINE | re.DOTALL)
    assert len(found) == len(every_operation())
    for method, path, status, answer in found:
        operation = OPERATIONS[method, path]
        if int(status) in operation.answers:
            continue
        code = re.search(r'"code": "([a-z_]+)"', answer)
        assert code is not None, (method, path)
        assert Code(code[1]) in operation.codes, (method, path)
        assert ERROR_CODES[Code(code[1])].status == int(status), (method, path)


@pytest.mark.parametrize("name", pictures.RESULTS)
def test_the_chart_of_the_readme_is_drawn_from_the_results(name: str) -> None:
    drawn = (ROOT / "docs" / "images" / "kept-speed.svg").read_text()
    found = pictures.bars(read_result(ROOT / "benchmarks" / "results" / f"{name}.json"))
    assert found
    assert [bar.label for bar in found if f"{bar.label}</text>" not in drawn] == []
    assert [bar.label for bar in found if f"{bar.median:.0%}</text>" not in drawn] == []


@pytest.mark.parametrize("name", RESULTS)
def test_the_published_tables_are_what_the_results_beside_them_say(name: str) -> None:
    document = read_result(ROOT / "benchmarks" / "results" / f"{name}.json")
    found = summarize(document)
    points = [one.sentence for one in crossovers(document, found)]
    text = markdown(document, found, advise(document, found).text, points)
    assert text in (ROOT / "docs" / "benchmarks.md").read_text()


def test_the_table_of_speeds_comes_from_the_results() -> None:
    results = [read_result(ROOT / "benchmarks" / "results" / f"{name}.json") for name in RESULTS]
    assert side_by_side(results) in page_of("tutorials/which-way.md")


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().split()) < 1000
