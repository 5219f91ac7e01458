"""Prometheus rules and the Grafana dashboard against the closed list of metrics, by Prometheus' own tools."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml
from dashboards import DEPLOY, dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from stream_learner.observing.metric_list import documented

RULES = DEPLOY / "prometheus" / "rules.yaml"
_SUFFIXES = ("_bucket", "_sum", "_count")

promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not here: make test-prometheus")


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def named(expression: str) -> set[str]:
    """The worker's metrics that an expression asks for."""
    names = set(re.findall(r"(?<![:\w])stream_learner_\w+", expression))
    bases = {name: next((name.removesuffix(s) for s in _SUFFIXES if name.endswith(s)), name) for name in names}
    histograms = {metric.name for metric in documented() if metric.type == "histogram"}
    return {base if base in histograms else name for name, base in bases.items()}


def test_rules_ask_only_for_metrics_that_are_there():
    known = {metric.name for metric in documented()}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        assert named(rule["expr"]) <= known
        assert set(re.findall(r"job:\w+:\w+", rule["expr"])) <= recorded


def test_each_alert_has_its_section_in_the_runbook_and_a_scenario_in_which_it_fires():
    sections = re.findall(r"^## (\w+)$", (DEPLOY / "RUNBOOK.md").read_text(), re.MULTILINE)
    assert sections == [alert["alert"] for alert in alerts()]
    for alert in alerts():
        assert alert["annotations"]["runbook_url"] == f"deploy/RUNBOOK.md#{alert['alert'].lower()}"
    scenarios = yaml.safe_load((DEPLOY / "prometheus" / "rules_test.yaml").read_text())["tests"]
    fired = {case["alertname"] for test in scenarios for case in test["alert_rule_test"] if case["exp_alerts"]}
    assert fired == set(sections)


@promtool
def test_promtool_accepts_the_rules_and_their_scenarios():
    for command in (["check", "rules", str(RULES)], ["test", "rules", str(DEPLOY / "prometheus" / "rules_test.yaml")]):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_the_one_that_the_code_writes():
    module = dashboard()
    assert module.FILE.read_text() == module.build(), "run python deploy/grafana/dashboard.py"


def test_the_dashboard_is_one_as_grafanas_own_types_have_it():
    """Read by the types that Grafana generates from its schema, and written again, nothing is lost or unknown."""
    register_default_plugins()
    content = json.loads(dashboard().FILE.read_text())
    read = json.loads(JSONEncoder().encode(Dashboard.from_json(content)))
    assert without_empty(read) == without_empty(content)
    assert not any(panel.get("options", {}) is None for panel in content["panels"])


def without_empty(content: Any) -> Any:
    """Without keys that hold an empty object, which say nothing."""
    if isinstance(content, list):
        return [without_empty(one) for one in content]
    if not isinstance(content, dict):
        return content
    return {name: without_empty(value) for name, value in content.items() if value != {}}


def test_the_dashboard_shows_every_metric_and_no_other():
    asked = set().union(*(named(expression) for expression in dashboard().expressions()))
    assert asked == {metric.name for metric in documented()}
