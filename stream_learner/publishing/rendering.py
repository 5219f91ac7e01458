"""Versions as an operator reads them on a terminal, or as a program reads them in JSON."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

from stream_learner.publishing.checkpoints import diff, flat
from stream_learner.publishing.manifest import Manifest, Pointer, to_json

_LISTED_METRICS = {"auc": "auc", "normalized_entropy": "ne", "calibration": "calibration"}
_FIRST_METRICS = ("n", "n_pos", "auc", "normalized_entropy", "calibration", "log_loss")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def render_list(manifests: list[Manifest], pointer: Pointer | None) -> str:
    """A line a version, the champion marked with an asterisk."""
    if not manifests:
        return "no versions yet"
    listed = _listed(manifests[-1])
    rows = [["", "version", "parent", "rollback of", "slide end", *listed.values(), "content"]]
    for manifest in manifests:
        mark = "*" if pointer is not None and pointer.version == manifest.version else ""
        metrics = [_number(manifest.metrics.get(name)) for name in listed]
        ancestry = [str(v) if v is not None else "-" for v in (manifest.parent, manifest.rollback_of)]
        end = utc(manifest.slide_end_us)
        rows.append([mark, str(manifest.version), *ancestry, end, *metrics, manifest.content_sha256[:12]])
    return table(rows)


def _listed(manifest: Manifest) -> dict[str, str]:
    """The metrics that tell most of a model's task, with their headings: rankings have theirs at the k they are for."""
    depth = max((int(name[4:]) for name in manifest.metrics if re.fullmatch(r"mrr@\d+", name)), default=0)
    ranked = {name: name for name in (f"recall@{depth}", f"mrr@{depth}", "catalogue")}
    return ranked if depth else _LISTED_METRICS


def render_verdict(verdict: dict[str, Any] | None) -> str:
    """The gate's newest answer, in a line of its own; nothing where it has given none."""
    if verdict is None:
        return ""
    return f"\nlast verdict, of the slide ending {utc(verdict['slide_end'])}: {verdict['reason']}"


def list_json(manifests: list[Manifest], pointer: Pointer | None) -> dict[str, Any]:
    """{"champion": version or None, "versions": [manifests]}."""
    champion = pointer.version if pointer is not None else None
    return {"champion": champion, "versions": [manifest_json(m) for m in manifests]}


def manifest_json(manifest: Manifest) -> dict[str, Any]:
    """A manifest in plain JSON types."""
    plain: dict[str, Any] = json.loads(to_json(manifest))
    return plain


def render_show(manifest: Manifest) -> str:
    """Why it was published, a rule a line; how good it is, a model a line; then everything else a version says about
    itself, a fact a line."""
    facts = manifest_json(manifest)
    head = f"version {manifest.version}, of the slide ending {utc(manifest.slide_end_us)}\n"
    head += f"{facts['verdict'].pop('reason', 'no reason given')}"
    rules = table([["", *map(_text, rule)] for rule in _rules(facts["verdict"].get("rules"))])
    if rules:
        head += f"\n{rules}"
        del facts["verdict"]["rules"]
    quality = table(_quality(facts["metrics"]))
    signatures = _calls(facts["signature"])
    files = facts.pop("files")
    offsets, gaps = facts.pop("offsets"), facts.pop("gaps")
    facts["slide_end"] = utc(manifest.slide_end_us)
    if manifest.event_time_span is not None:
        facts["event_time_span"] = " to ".join(utc(t) for t in manifest.event_time_span)
    rows = [[name, _text(value)] for name, value in sorted(flat(facts).items())]
    rows += signatures
    rows += [[f"offsets {o['topic']}/{o['index']}", f"{o['first']} to {o['last']}"] for o in offsets]
    rows += [[f"gap {g['topic']}/{g['index']}", _gap(g)] for g in gaps]
    rows += [[f"file {name}", f"{s['size']} bytes, sha256 {s['sha256']}"] for name, s in sorted(files.items())]
    return "\n\n".join(part for part in (head, quality, table(rows)) if part)


def _quality(metrics: dict[str, Any]) -> list[list[str]]:
    """The metrics of each model over each span, taken out of what a manifest says of them; nothing where there are
    none, or where another release wrote other things."""
    windows = metrics.get("windows")
    spans = {"lifetime": metrics.get("lifetime"), **(windows if isinstance(windows, dict) else {})}
    if not all(isinstance(models, dict) for models in spans.values()):
        return []
    found = {f"{span} {model}": numbers for span, models in spans.items() for model, numbers in models.items()}
    if not all(isinstance(numbers, dict) for numbers in found.values()):
        return []
    names = sorted({name for numbers in found.values() for name in numbers}, key=_place)
    for name in (*names, "lifetime", "windows"):
        metrics.pop(name, None)
    rows = [[model, *(_text(numbers.get(name)) for name in names)] for model, numbers in found.items()]
    return [["metrics at arrival", *names], *rows] if rows else []


def _place(metric: str) -> tuple[int, str]:
    """The metrics asked for most come first."""
    return (_FIRST_METRICS.index(metric) if metric in _FIRST_METRICS else len(_FIRST_METRICS)), metric


def _calls(signatures: dict[str, Any]) -> list[list[str]]:
    """What each signature takes and gives, in one line; taken out, where it is as this release writes it."""
    rows = []
    for name, given in sorted(signatures.items()):
        sides = [given.get("inputs"), given.get("outputs")] if isinstance(given, dict) else []
        told = [", ".join(sorted(side)) for side in sides if isinstance(side, dict)]
        if len(told) == 2:
            rows.append([f"signature {name}", " -> ".join(told)])
            del signatures[name]
    return rows


def _rules(rules: Any) -> list[list[Any]]:
    """Outcome, name and text of each rule of a verdict; nothing where another release wrote other things."""
    whole = {"passed", "asked", "name", "text"}
    if not isinstance(rules, list) or not all(isinstance(rule, dict) and whole <= rule.keys() for rule in rules):
        return []
    outcomes = [("ok" if rule["passed"] else "failed") if rule["asked"] else "-" for rule in rules]
    return [[outcome, rule["name"], rule["text"]] for outcome, rule in zip(outcomes, rules, strict=True)]


def _gap(gap: dict[str, Any]) -> str:
    went_on = (
        f"from {gap['from']} on to {gap['until']}"
        if gap["decision"] == "skip"
        else f"from {gap['from']} back to {gap['until']}"
    )
    return f"{went_on}, by --on-gap {gap['decision']} before slide {gap['slide']}"


def render_diff(a: Manifest, b: Manifest) -> str:
    """Only what differs, a block for each part."""
    blocks = []
    for part, pairs in diff(a, b).items():
        if pairs:
            rows = [[part, str(a.version), str(b.version)]]
            rows += [[f"  {name}", _text(left), _text(right)] for name, (left, right) in pairs.items()]
            blocks.append(table(rows))
    return "\n\n".join(blocks) or f"versions {a.version} and {b.version} are equal"


def table(rows: list[list[str]]) -> str:
    """Left-aligned columns two blanks apart."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def utc(time_us: int) -> str:
    """ISO 8601 in UTC, to the second; the bare number where no calendar reaches."""
    try:
        return (_EPOCH + timedelta(microseconds=time_us)).strftime("%Y-%m-%dT%H:%M:%SZ")
    except OverflowError:
        return f"{time_us} us"


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, (int, float)) and abs(value) < 1e15 else "-"


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)
