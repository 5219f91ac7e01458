"""The Grafana dashboard, from the worker's closed list of metrics: `python deploy/grafana/dashboard.py` writes it.

The first rows answer the questions an ML engineer and a platform team open it with; the last one holds every metric
that no question has taken, so that the dashboard and the list cannot drift apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.builders import prometheus, stat, timeseries
from grafana_foundation_sdk.builders.common import ReduceDataOptions, VizLegendOptions
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.common import BigValueGraphMode, LegendDisplayMode, LegendPlacement

from stream_learner.observing.metric_list import Documented, documented

FILE = Path(__file__).with_name("stream-learner.json")
_ONE = '{job=~"$job", instance=~"$instance"}'  # the workers chosen
_WIDTH, _HEIGHT = 8, 8


@dataclass(frozen=True)
class Panel:
    """One question: PromQL by legend. `M(name)` in an expression is that metric of the workers chosen."""

    title: str
    targets: dict[str, str]
    unit: str = "short"
    single: bool = False  # a number instead of lines


ROWS: dict[str, list[Panel]] = {
    "In service": [
        Panel("Version in service", {"": "max(M(champion_version))"}, "none", single=True),
        Panel(
            "Age of the version in service, in event time",
            {"": "max(M(watermark_seconds)) - max(M(version_slide_end_seconds) > 0)"},
            "s",
            single=True,
        ),
        Panel("Verdicts per hour", {"{{verdict}}": "sum by (verdict) (increase(M(verdicts_total)[1h]))"}),
        Panel(
            "Gain of the candidate at the last verdict, and what the gate asks for",
            {"{{bound}}": "M(gate_gain_ratio)"},
            "none",
        ),
        Panel(
            "Freshness: now less the newest event of the version in service",
            {"{{instance}}": "time() - (M(version_newest_event_seconds) > 0)"},
            "s",
        ),
        Panel("Lag in event time", {"{{instance}}": "time() - (M(watermark_seconds) > 0)"}, "s"),
    ],
    "Quality, prequential": [
        Panel(name, {"{{model}} {{window}}": f'M(quality_ratio, metric="{metric}")'})
        for name, metric in (("AUC", "auc"), ("Normalized entropy", "ne"), ("Calibration", "calibration"))
    ],
    "Labels and drift": [
        Panel("PSI by feature", {"{{feature}}": "M(feature_psi)"}),
        Panel("Positive ratio, 6 h", {"": "job:stream_learner_positive:ratio6h" + _ONE}, "percentunit"),
        Panel(
            "Clicks, matured examples and purchases without a click, per second",
            {
                "examples": "sum(rate(M(examples_total)[5m]))",
                "matured": "sum(rate(M(matured_total)[5m]))",
                "positives": "sum(rate(M(positives_total)[5m]))",
                "purchases without a click": "sum(rate(M(unmatched_purchases_total)[5m]))",
            },
        ),
    ],
    "Data outages": [
        Panel(
            "Join health: what a slide brought of its season", {"{{measure}}": "M(join_health_ratio)"}, "percentunit"
        ),
        Panel(
            "Outage, and slides in quarantine per hour",
            {"outage": "max(M(outage))", "slides": "sum(increase(M(broken_slides_total)[1h]))"},
        ),
        Panel(
            "Quarantined examples per hour",
            {"{{fate}}": "sum by (fate) (increase(M(quarantined_examples_total)[1h]))"},
        ),
    ],
    "Recommendations": [
        Panel(
            f"{title} by model, all examples",
            {"{{model}} {{metric}}": f'M(ranking_quality_ratio, metric=~"{metric}@.+", slice="all")'},
        )
        for title, metric in (("Recall", "recall"), ("MRR", "mrr"))
    ]
    + [
        Panel(
            "Verdicts on rankings per hour",
            {"{{verdict}}": "sum by (verdict) (increase(M(ranking_verdicts_total)[1h]))"},
        )
    ],
    "Replay": [
        Panel("Make-up by age in event time", {"{{age}}": "M(replay_age_ratio)"}, "percentunit"),
        Panel("Make-up by label, or value", {"{{stratum}}": "M(replay_stratum_ratio)"}, "percentunit"),
        Panel("Examples held", {"{{instance}}": "M(replay_examples)"}),
    ],
    "Throughput": [
        Panel("Records per second", {"{{topic}}": "sum by (topic) (rate(M(records_total)[5m]))"}),
        Panel("Lag, records", {"{{topic}}-{{partition}}": "M(lag_records)"}),
        Panel("Events by fate, per second", {"{{fate}}": "sum by (fate) (rate(M(events_total)[5m]))"}),
        Panel(
            "Dead letters by reason, per second", {"{{reason}}": "sum by (reason) (rate(M(dead_letters_total)[5m]))"}
        ),
        Panel(
            "Slide duration by stage, mean",
            {
                "{{stage}}": "sum by (stage) (rate(M(slide_duration_seconds_sum)[5m]))"
                " / sum by (stage) (rate(M(slide_duration_seconds_count)[5m]))"
            },
            "s",
        ),
        Panel("Rows learned per second", {"{{source}}": "sum by (source) (rate(M(learned_rows_total)[5m]))"}),
    ],
    "State and storage": [
        Panel(
            "Writing a snapshot and a version, p95",
            {
                "snapshot": "histogram_quantile(0.95, sum by (le) (rate(M(snapshot_duration_seconds_bucket)[1h])))",
                "version": "histogram_quantile(0.95, sum by (le) (rate(M(publish_duration_seconds_bucket)[1h])))",
            },
            "s",
        ),
        Panel("Snapshot size", {"{{instance}}": "M(snapshot_size_bytes)"}, "bytes"),
        Panel("Memory", {"{{instance}}": "M(resident_memory_bytes)"}, "bytes"),
    ],
}


def build() -> str:
    """The dashboard as JSON text."""
    board = (
        dashboards.Dashboard("stream-learner")
        .uid("stream-learner")
        .tags(["stream-learner"])
        .editable()
        .refresh("30s")
        .time("now-24h", "now")
        .timezone("browser")
    )
    for name in ("job", "instance"):
        board = board.with_variable(_variable(name))
    for title, panels in {**ROWS, "Everything else": _others()}.items():
        board = board.with_row(dashboards.Row(title))
        for panel in panels:
            board = board.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(board.build()) + "\n"


def _variable(name: str) -> dashboards.QueryVariable:
    """A choice among the workers that are there."""
    return (
        dashboards.QueryVariable(name)
        .query(f"label_values(stream_learner_lease_token, {name})")
        .datasource(_source())
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .multi(True)
        .include_all(True)
        .all_value(".*")
    )


def _source() -> model.DataSourceRef:
    return model.DataSourceRef(type_val="prometheus", uid="prometheus")


def _panel(panel: Panel) -> stat.Panel | timeseries.Panel:
    shown = _number() if panel.single else timeseries.Panel().legend(_legend())
    shown = shown.title(panel.title).unit(panel.unit).datasource(_source()).span(_WIDTH).height(_HEIGHT)
    for legend, expression in panel.targets.items():
        shown = shown.with_target(prometheus.Dataquery().expr(_promql(expression)).legend_format(legend))
    return shown


def _number() -> stat.Panel:
    return stat.Panel().graph_mode(BigValueGraphMode.AREA).reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))


def _legend() -> VizLegendOptions:
    return VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(True)


def _promql(expression: str) -> str:
    """`M(name)` and `M(name, label="value")` spelled out."""
    before, *rest = expression.split("M(")
    out = before
    for part in rest:
        inner, _, after = part.partition(")")
        name, _, labels = inner.partition(", ")
        chosen = _ONE if not labels else _ONE[:-1] + f", {labels}}}"
        out += f"stream_learner_{name}{chosen}{after}"
    return out


def _others() -> list[Panel]:
    """A panel for each metric that no row above asks for."""
    asked = " ".join(expression for panels in ROWS.values() for p in panels for expression in p.targets.values())
    return [
        _plain(metric) for metric in documented() if f"M({metric.name.removeprefix('stream_learner_')}" not in asked
    ]


def _plain(metric: Documented) -> Panel:
    name = metric.name.removeprefix("stream_learner_")
    legend = " ".join(f"{{{{{label}}}}}" for label in metric.labels) or "{{instance}}"
    unit = {"bytes": "bytes", "seconds": "s"}.get(name.removesuffix("_total").rpartition("_")[2], "short")
    if metric.type == "counter":
        return Panel(f"{metric.help}, per hour", {legend: f"increase(M({name})[1h])"}, unit)
    if metric.type == "histogram":
        return Panel(f"{metric.help}, mean", {legend: f"rate(M({name}_sum)[1h]) / rate(M({name}_count)[1h])"}, unit)
    return Panel(metric.help, {legend: f"M({name})"}, unit)


def expressions() -> Iterator[str]:
    """The PromQL of every panel, with the variables standing for all workers."""
    for panels in (*ROWS.values(), _others()):
        for panel in panels:
            for expression in panel.targets.values():
                yield _promql(expression).replace('job=~"$job", instance=~"$instance"', 'job=~".+"')


if __name__ == "__main__":
    FILE.write_text(build())
