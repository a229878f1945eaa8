"""A running server has every metric and label of the dashboard and the alert rules."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from lora_compose.server.metrics import Metrics
from tests.server.promql import read

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations"
DASHBOARD: dict[str, Any] = json.loads((OPERATIONS / "grafana-dashboard.json").read_text())
ALERTS: dict[str, Any] = yaml.safe_load((OPERATIONS / "alerts.yaml").read_text())
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
OF_PROMETHEUS = {"instance", "job"}
SUFFIXES = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
DURATION = re.compile(r"(\d+(ms|[smhdwy]))+")

Known = dict[str, set[str]]


def our_metrics() -> Iterator[tuple[str, str, set[str]]]:
    """(sample, family, labels), also of series that only appear after an event."""
    registry = Metrics().registry
    for metric in registry._collector_to_names:
        assert isinstance(metric, MetricWrapperBase)
        (family,) = metric.describe()
        for suffix in SUFFIXES[family.type]:
            labels = {*metric._labelnames, *(["le"] if suffix == "_bucket" else [])}
            yield family.name + suffix, family.name, labels


def expressions() -> list[tuple[str, str]]:
    """Each (place, PromQL) pair, including Grafana's variables."""
    shown = [(panel["title"], target["expr"]) for panel in PANELS for target in panel["targets"]]
    return [*shown, *((rule["alert"], rule["expr"]) for rule in RULES)]


@pytest.fixture(scope="module")
def known(server: Any) -> Known:
    """The metrics of the real server, and those of ours that appear after events."""
    text = httpx.get(f"{server.url}/metrics", timeout=60).text
    found: Known = {"up": set()}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    for name, _, labels in our_metrics():
        found.setdefault(name, set()).update(labels)
    return found


def test_every_metric_and_label_is_one_the_server_exposes(known: Known) -> None:
    for where, expression in expressions():
        reading = read(expression)
        assert reading.metrics, where
        assert reading.metrics.keys() <= known.keys(), where
        for name, labels in reading.metrics.items():
            assert labels <= known[name] | OF_PROMETHEUS, (where, name)
        own = set().union(*(known[name] for name in reading.metrics))
        assert reading.lists <= own | OF_PROMETHEUS, where


def test_every_metric_of_ours_is_shown_or_watched() -> None:
    families = {name: family for name, family, _ in our_metrics()}
    used = {families.get(name) for _, expression in expressions() for name in read(expression).metrics}
    assert set(families.values()) - used == set()


def test_what_our_metrics_are_called_is_what_a_server_calls_them(http: httpx.Client) -> None:
    text = http.get("/metrics").text
    declared = set(re.findall(r"^# TYPE (lora_compose_\w+)", text, re.MULTILINE))
    names = {name for name, _, _ in our_metrics()} | {family for _, family, _ in our_metrics()}
    assert {name for name in declared if not name.endswith("_created")} <= names


def test_legends_and_annotations_name_labels_that_are_there(known: Known) -> None:
    for panel in PANELS:
        for target in panel["targets"]:
            reading = read(target["expr"])
            own = set().union(*(known[name] for name in reading.metrics)) | OF_PROMETHEUS
            assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= (reading.lists or own)
    for rule in RULES:
        reading = read(rule["expr"])
        own = set().union(*(known[name] for name in reading.metrics)) | OF_PROMETHEUS
        words = " ".join(rule["annotations"].values())
        assert set(re.findall(r"\$labels\.(\w+)", words)) <= own, rule["alert"]


def test_the_dashboard_can_be_imported_into_grafana_10() -> None:
    assert DASHBOARD["schemaVersion"] >= 38
    kinds = {variable["name"]: variable["type"] for variable in DASHBOARD["templating"]["list"]}
    assert kinds == {"datasource": "datasource", "instance": "query"}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    for panel in PANELS:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_no_panel_lies_on_another() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_alerts_are_a_rule_file() -> None:
    assert ALERTS.keys() == {"groups"}
    assert len({group["name"] for group in ALERTS["groups"]}) == len(ALERTS["groups"])
    assert all(group.keys() <= {"name", "interval", "rules"} for group in ALERTS["groups"])
    for rule in RULES:
        assert {"alert", "expr", "labels", "annotations"} <= rule.keys() <= {
            "alert", "expr", "for", "keep_firing_for", "labels", "annotations",
        }, rule  # fmt: skip
        assert DURATION.fullmatch(rule.get("for", "0s")), rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description"}
        assert len(rule["annotations"]["description"]) > 60, "it says what to do"
    assert len({rule["alert"] for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("wrong", ["sum(x", "rate(x)]", "sums(x)", "x{a=~'b'}", "sum by (le x"])
def test_the_reader_refuses_what_is_no_promql(wrong: str) -> None:
    with pytest.raises((ValueError, IndexError)):
        read(wrong)


def test_the_reader_tells_metrics_from_functions_and_labels() -> None:
    reading = read(
        'histogram_quantile(0.9, sum by (le, kind) (rate(a_bucket{b=~"c|d"}[5m]))) > 2e9 and on (i) e:f'
    )
    assert reading.metrics == {"a_bucket": {"b"}, "e:f": set()}
    assert reading.lists == {"le", "kind", "i"}
