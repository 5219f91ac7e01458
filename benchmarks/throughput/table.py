"""The figures as a table and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_WORDS = {
    "full": "the worker, everything on",
    "bare": "windows, replay and second model off",
    "poll_decode": "poll and decode alone",
    "tutorial_loop": "`train_on_batch`, Adam, batch 256",
    "river": "River, four features",
    "vw": "Vowpal Wabbit, four features",
}


def words(name: str) -> str:
    plain = name.removesuffix("_confluent")
    if plain != name:
        return f"{words(plain)}, by confluent-kafka"
    return _WORDS.get(name, f"without {name.removeprefix('no_').replace('_', ' ')}")


def markdown(report: dict[str, Any]) -> str:
    """A line each, the cheapest first."""
    cpu = report["cpu_s_per_million"]
    lines = ["| | CPU-s per million events | events/s | peak MB | rounds |", "|---|---|---|---|---|"]
    for name in sorted(cpu, key=lambda one: float(cpu[one])):
        rate, peak = report["events_per_second"][name], report["peak_rss_bytes"][name] / 1e6
        lines.append(f"| {words(name)} | {cpu[name]:.1f} | {rate:,.0f} | {peak:,.0f} | {report['rounds'][name]} |")
    lines.append("")
    lines += [f"{name}: {ratio:.2f}" for name, ratio in report["ratios"].items()]
    return "\n".join(lines)


def picture(report: dict[str, Any], path: Path) -> None:
    """A bar each."""
    from matplotlib.figure import Figure

    cpu = report["cpu_s_per_million"]
    names = sorted(cpu, key=lambda one: -float(cpu[one]))
    figure = Figure((9, 0.4 * len(names) + 1), layout="constrained")
    axes = figure.subplots()
    bars = axes.barh([words(name) for name in names], [cpu[name] for name in names])
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set_xlabel("CPU-seconds per million events")
    figure.savefig(path)
