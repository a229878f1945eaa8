"""README and code name the same flags, metrics, methods and routes."""

import re
from pathlib import Path

import pytest
from starlette.routing import Route

from lora_compose.adapters.composition.composition import METHOD_NAMES
from lora_compose.benchmarks.serving.report.tables import markdown, side_by_side
from lora_compose.benchmarks.serving.results.advice import advise
from lora_compose.benchmarks.serving.results.crossovers import crossovers
from lora_compose.benchmarks.serving.results.document import read_result
from lora_compose.benchmarks.serving.results.summary import summarize
from lora_compose.server.app import routes
from lora_compose.server.config import ServerConfig
from lora_compose.server.fusion.policy import FusePolicySettings
from lora_compose.server.metrics import Metrics

RESULTS = ("embedded", "311M")
ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
FLAG_NAMES = {"adapter_roots": "adapter_root", "api_keys": "api_key", "accept_bases": "accept_base"}


def test_every_serve_flag_is_in_the_readme_and_the_other_way_round() -> None:
    own = ServerConfig.__dataclass_fields__.keys() - {"fuse_settings", "http"}
    fuse = {f"fuse_{name}" for name in FusePolicySettings.__dataclass_fields__}
    fields = {FLAG_NAMES.get(name, name) for name in own} | fuse
    flags = {f"--{name.replace('_', '-')}" for name in fields}
    rows = re.findall(r"^\| (`--[^|]+) \|", README, re.MULTILINE)
    assert set(re.findall(r"--[a-z-]+", " ".join(rows))) == flags


def test_every_metric_is_in_the_readme_and_the_other_way_round() -> None:
    families = list(Metrics().registry.collect())
    names = {f"{m.name}_total" if m.type == "counter" else m.name for m in families}
    assert set(re.findall(r"lora_compose_[a-z0-9_]+", README)) == names


def test_every_method_is_in_the_readme() -> None:
    table = README.partition("## Stack, merge, fuse")[2].partition("\n\nAll methods")[0]
    assert set(METHOD_NAMES) <= set(re.findall(r"`([a-z_]+)`", table))


def test_every_path_of_the_operator_s_table_exists() -> None:
    paths = {route.path for route in routes() if isinstance(route, Route)}
    table = README.partition("## Operate")[2].partition("Our metrics")[0]
    named = set(re.findall(r"`(/[a-z0-9_/]+)`", table))
    assert named
    assert named <= paths


def test_every_make_target_in_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z0-9-]+)", README)) <= targets


def test_every_linked_file_exists() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("name", RESULTS)
def test_the_published_tables_are_what_the_results_beside_them_say(name: str) -> None:
    document = read_result(ROOT / "benchmarks" / "results" / f"{name}.json")
    found = summarize(document)
    points = [one.sentence for one in crossovers(document, found)]
    text = markdown(document, found, advise(document, found).text, points)
    assert text in (ROOT / "docs" / "benchmarks.md").read_text()


def test_the_readme_claims_about_speed_come_from_the_results() -> None:
    results = [read_result(ROOT / "benchmarks" / "results" / f"{name}.json") for name in RESULTS]
    assert side_by_side(results) in README
