"""The alert rules and the dashboard: parsed by Prometheus's grammar, and held to the metrics that the kit serves."""

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client.core import Metric

from dify_kit.commands import metrics as command
from dify_kit.smoke.metrics import SmokeMetrics
from dify_kit.smoke.run import Ended
from dify_kit.watch.metrics import StackMetrics
from infra.catalogue.project import ROOT
from tests.unit.cli.test_metrics import well
from tests.unit.served import served

RULES = ROOT / "docs" / "examples" / "prometheus"
DASHBOARD = ROOT / "docs" / "examples" / "grafana" / "dify.json"
GUIDE = ROOT / "docs" / "reference" / "metrics.md"
# What Prometheus makes itself.
OWN = {"ALERTS"}
# Labels whose values are bounded by code, and not by an example.
BOUNDED = {"status", "state", "call", "limit"}
VARIABLES = {"$__rate_interval": "5m", "$stack": "prod"}
COLUMNS = 24


@cache
def families() -> tuple[Metric, ...]:
    """Return all metrics that the kit serves."""
    status = well()
    status.scraped = {"dify-dev-nginx": served()}
    stack, smoke = StackMetrics("dev"), SmokeMetrics("dev")
    stack.update(status, 1.0)
    smoke.update(Ended(code=0))
    return (*stack.collect(), *smoke.collect())


@cache
def known() -> dict[str, dict[str, set[str]]]:
    """Return the names of all samples with their labels, and the values that each has."""
    found: dict[str, dict[str, set[str]]] = {}
    for family in families():
        for one in family.samples:
            labels = found.setdefault(one.name, {})
            for name, value in one.labels.items():
                labels.setdefault(name, set()).add(value)
    return found


def rules(name: str) -> Any:  # YAML
    return yaml.safe_load((RULES / name).read_text(encoding="utf-8"))


def alerts() -> list[dict[str, Any]]:
    (group,) = rules("alerts.yml")["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def panels() -> list[dict[str, Any]]:
    document = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [one for one in document["panels"] if one["type"] != "row"]


def expressions() -> Iterator[tuple[str, str]]:
    """Yield every query with the name of what has it."""
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            yield panel["title"], expression
    for case in rules("alerts_test.yml")["tests"]:
        for series in case["input_series"]:
            yield case["name"], series["series"]
        for one in case.get("promql_expr_test", []):
            yield case["name"], one["expr"]


def selectors(expression: str) -> list[promql_parser.VectorSelector]:
    """Return the selectors of an expression. Raises ValueError for one that Prometheus would refuse."""
    found: list[promql_parser.VectorSelector] = []

    def visit(one: object) -> bool:
        if isinstance(one, promql_parser.VectorSelector):
            found.append(one)
        return True

    promql_parser.walk(promql_parser.parse(expression), pre_visit=visit)
    return found


def groupings(expression: str) -> set[str]:
    """Return the labels that an expression sums or joins by."""
    return {
        name.strip()
        for names in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression)
        for name in names.split(",")
    }


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_each_query_uses_metrics_and_labels_that_are_served(where: str, expression: str) -> None:
    found = [one for one in selectors(expression) if one.name not in OWN]
    labels: set[str] = set()
    for one in found:
        assert one.name in known(), f"{where}: {one.name}"
        own = known()[str(one.name)]
        labels |= own.keys()
        for matcher in one.matchers.matchers:
            assert matcher.name in own, f"{where}: {one.name} has no label {matcher.name}"
            # An upstream of the LLM proxy has statuses of its own.
            if matcher.name in BOUNDED and "upstream" not in own:
                wanted = (
                    matcher.value.split("|") if matcher.op == promql_parser.MatchOp.Re else [matcher.value]
                )
                assert set(wanted) <= own[matcher.name], f"{where}: {matcher.value}"
    assert groupings(expression) <= labels | {""}, where


def test_a_query_of_what_is_not_served_is_noticed() -> None:
    (one,) = selectors('sum(rate(dify_kit_edge_request_total{status="429"}[5m]))')
    assert one.name not in known()
    with pytest.raises(ValueError, match="unclosed left parenthesis"):
        selectors("sum(rate(dify_kit_edge_requests_total[5m])")


def test_each_alert_has_a_severity_and_a_summary_of_its_own_labels() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        summary = rule["annotations"]["summary"]
        used = set(re.findall(r"\$labels\.([a-z_]+)", summary))
        sums = re.findall(r"\bby \(([^)]*)\)", rule["expr"])
        for names in sums:
            # The quantile takes `le` away; a summary names only what is left.
            assert used <= {name.strip() for name in names.split(",")}, rule["alert"]
    assert len({rule["alert"] for rule in alerts()}) == len(alerts())


def test_every_alert_on_traffic_has_a_series_in_the_tests_of_the_rules() -> None:
    given = {
        selectors(series["series"])[0].name
        for case in rules("alerts_test.yml")["tests"]
        for series in case["input_series"]
    }
    for rule in alerts():
        assert {one.name for one in selectors(rule["expr"])} & given, rule["alert"]


def test_the_dashboard_has_panels_that_grafana_places_and_reads() -> None:
    document = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    taken: set[tuple[int, int]] = set()

    assert {one["name"] for one in document["templating"]["list"]} == {"datasource", "stack"}
    assert len({one["id"] for one in document["panels"]}) == len(document["panels"])
    for panel in document["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= COLUMNS, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels():
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert len({one["refId"] for one in panel["targets"]}) == len(panel["targets"]) > 0
        for target in panel["targets"]:
            assert "$stack" in target["expr"], panel["title"]


def test_the_example_scrapes_the_ports_of_the_commands() -> None:
    targets = [one["static_configs"][0]["targets"] for one in rules("scrape.yml")]

    assert targets[0] == [f"127.0.0.1:{command.PORT}"]
    assert targets[1] == ["127.0.0.1:9469"]


def test_the_reference_has_every_metric_with_its_type_and_labels() -> None:
    rows = re.findall(
        r"^\| `(dify_[a-z_]+)` \| ([a-z]+) \|([^|]*)\| [^|]+ \|$",
        GUIDE.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    documented = {name: (kind, set(re.findall(r"`([a-z_]+)`", labels))) for name, kind, labels in rows}
    expected = {
        (f"{family.name}_total" if family.type == "counter" else family.name): (
            family.type,
            {name for one in family.samples for name in one.labels} - {"stack", "le"},
        )
        for family in families()
        if family.name.startswith(("dify_stack_", "dify_kit_"))
    }

    assert documented == expected
