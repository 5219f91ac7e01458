"""The card of a version: what it is, where it comes from, how good it is and what moves it (Mitchell et al., "Model
cards for model reporting", FAT* 2019). `card.md` and `card.html` lie beside the graph.

A function of the manifest and of what the judge had observed, so that a replay writes the same bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from stream_learner.judging.observed import Observed
from stream_learner.publishing.manifest import Manifest

MARKDOWN, HTML = "card.md", "card.html"
_METRICS = ("auc", "gauc", "average_precision", "normalized_entropy", "calibration", "ece", "n", "n_pos")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Moved:
    """By feature, what moves the version's scores; `explaining/features.py` says how."""

    importance: dict[str, float]  # NE lost when the feature is shuffled; empty where it cannot be told
    shares: dict[str, float]  # mean absolute share in the logit
    left: float  # mean absolute part of the logit that the shares leave unexplained
    examples: int


@dataclass(frozen=True)
class Table:
    """Rows of short texts; the columns of numbers are set to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Reliability:
    """Predicted against observed rates, to be drawn."""

    points: Sequence[Mapping[str, float]]


Part = str | Table | Reliability


@dataclass(frozen=True)
class Section:
    title: str
    parts: Sequence[Part]


@dataclass(frozen=True)
class Card:
    title: str
    summary: str
    sections: Sequence[Section]


def card(manifest: Manifest, observed: Observed, moved: Moved) -> Card:
    """All that is told, in reading order."""
    quality = [_quality(manifest), _slices(observed), _calibration(observed)]
    if manifest.rollback_of is not None:
        quality = [Section("Quality", [files_of(manifest.rollback_of)])]
    sections = [lineage(manifest), seen(manifest), *quality, _drift(observed), _features(moved), verdict(manifest)]
    return Card(f"{manifest.model}, version {manifest.version}", summary(manifest), sections)


def files_of(version: int) -> str:
    """What a card says of quality where an older version is served again."""
    return f"These are the files of version {version} under a new number; its card says how good it was."


def number(value: Any) -> str:
    """Four digits; a dash for what is not known."""
    if isinstance(value, (list, tuple)):
        return " to ".join(number(one) for one in value)
    if value is None or value != value:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def moment(us: int) -> str:
    """In UTC, without an offset."""
    return (_EPOCH + timedelta(microseconds=us)).strftime("%Y-%m-%d %H:%M:%S")


def summary(manifest: Manifest) -> str:
    """When and why, in a sentence or two."""
    reason = manifest.verdict.get("reason", "no reason given")
    return f"Made of the slide that ended at {moment(manifest.slide_end_us)} UTC of event time. {reason}"


def lineage(manifest: Manifest) -> Section:
    """What it follows, and what its bytes depend on."""
    libraries = ", ".join(f"{name} {version}" for name, version in sorted(manifest.libraries.items()))
    facts = {
        "Follows version": "none: the first one" if manifest.parent is None else str(manifest.parent),
        "Rollback of": "-" if manifest.rollback_of is None else str(manifest.rollback_of),
        "Slide": str(manifest.slide),
        "Model keys of the config": manifest.config_hash,
        "Seed": str(manifest.seed),
        "Content (SHA-256)": manifest.content_sha256,
        "Libraries": libraries,
        "CPU": f"{manifest.machine.threads} threads, {' '.join(manifest.machine.cpu_features)}",
    }
    return Section("Lineage", [Table(("", ""), [*facts.items()])])


def seen(manifest: Manifest) -> Section:
    """The span of events and offsets behind it, and what is missing in it."""
    span = manifest.event_time_span
    told = "No event yet." if span is None else f"Events of {moment(span[0])} to {moment(span[1])} UTC, from:"
    ranges = [(f"{r.topic}/{r.index}", str(r.first), str(r.last)) for r in manifest.offsets]
    gaps, lost = len(manifest.gaps), len(manifest.quarantined)
    missing = f"Gaps in the log: {gaps}. Slides found broken and put into quarantine since the version before: {lost}."
    reasons = [str(slide.get("reason", "")) for slide in manifest.quarantined]
    return Section("Data", [told, Table(("partition", "first offset", "last offset"), ranges), missing, *reasons])


def _quality(manifest: Manifest) -> Section:
    by_span = {"lifetime": manifest.metrics.get("lifetime", {}), **manifest.metrics.get("windows", {})}
    rows = [
        (model, span, *(number(values.get(name)) for name in _METRICS))
        for span, models in by_span.items()
        for model, values in models.items()
    ]
    how = (
        "Every example is scored as it arrives and judged when its label is known, before it is learned from. "
        "`candidate` is this version as it learned; `champion` the one before; the others do nothing."
    )
    return Section("Quality", [how, Table(("model", "over", *_METRICS), rows)])


def _slices(observed: Observed) -> Section:
    rows = [
        (name, *(number(values.get(metric)) for metric in _METRICS)) for name, values in sorted(observed.slices.items())
    ]
    parts: list[Part] = [_over(observed), Table(("slice", *_METRICS), rows)] if rows else ["No slices are asked for."]
    return Section("Quality by slice", parts)


def _calibration(observed: Observed) -> Section:
    points = observed.reliability
    if not points:
        return Section("Calibration", ["No example has been judged yet."])
    rows = [(number(p["n"]), number(p["predicted"]), number(p["observed"])) for p in points]
    how = f"Ten parts of equal size by score. {_over(observed)}"
    return Section("Calibration", [how, Reliability(points), Table(("examples", "predicted", "observed"), rows)])


def _over(observed: Observed) -> str:
    return f"Over {'all examples' if observed.span is None else f'the last {observed.span}'}."


def _drift(observed: Observed) -> Section:
    found = [f"{one['kind']}: {one['measure']} {number(one['value'])} of {one['subject']}" for one in observed.findings]
    told = f"Standing when the version was made: {'; '.join(found)}." if found else "No drift stood at that time."
    ranked = sorted(observed.psi.items(), key=lambda item: (-item[1], item[0]))
    rows = [(name, number(value)) for name, value in ranked]
    against = "Arriving examples against the reference:" if rows else "Too few examples to hold against a reference."
    return Section("Drift", [told, against, *([Table(("feature", "PSI"), rows)] if rows else [])])


def _features(moved: Moved) -> Section:
    if not moved.shares:
        return Section("What moves the scores", ["No matured example to look at."])
    ranked = sorted(moved.shares, key=lambda name: (-moved.importance.get(name, 0.0), -moved.shares[name], name))
    rows = [(name, number(moved.importance.get(name)), number(moved.shares[name])) for name in ranked]
    how = (
        f"On {moved.examples:,} matured examples the candidate learned from: what NE loses when a feature is shuffled "
        "among them, and the feature's mean absolute share in the logit by integrated gradients, from an event of "
        f"which only the time is known ({number(moved.left)} of the logit is left unexplained on average)."
    )
    return Section("What moves the scores", [how, Table(("feature", "NE lost", "share in the logit"), rows)])


def verdict(manifest: Manifest) -> Section:
    """The gate's answer, rule by rule."""
    rules = manifest.verdict.get("rules", [])
    rows = [
        (
            str(rule.get("name")),
            number(rule.get("value")),
            number(rule.get("threshold")),
            "passed" if rule.get("passed") else "failed",
            str(rule.get("text", "")),
        )
        for rule in rules
    ]
    reason = str(manifest.verdict.get("reason", "no reason given"))
    parts: list[Part] = [reason, Table(("rule", "value", "threshold", "", ""), rows)] if rows else [reason]
    return Section("Verdict", parts)
