"""Faults x trials x verdicts, as Markdown: the table of the README."""

from __future__ import annotations

from collections.abc import Sequence

from .damage import DAMAGES
from .faults import FAULTS
from .plans import POWER_CUT
from .trials import Result

_HEAD = "| what befell the worker | times | trials | equal | lost | duplicated |\n|---|---|---|---|---|---|"


def table(results: Sequence[Result]) -> str:
    """A row per kind of fault and of damage, and one for all; a trial counts in the row of each thing it saw."""
    rows = [_HEAD]
    for kind in sorted({kind for result in results for kind in result.kinds} - {"none"}, key=_order):
        rows.append(_row(kind, sum(r.kinds[kind] for r in results), [r for r in results if r.kinds[kind]]))
    kills = sum(result.killed for result in results)
    return "\n".join([*rows, _row("**all trials**, lives ended by SIGKILL", kills, results)])


def _row(name: str, times: int, results: Sequence[Result]) -> str:
    equal = sum(r.verdict.equal for r in results)
    lost, twice = sum(r.verdict.lost for r in results), sum(r.verdict.duplicated for r in results)
    return f"| {name} | {times} | {len(results)} | {equal} | {lost} | {twice} |"


def _order(kind: str) -> tuple[int, str]:
    """Kills first, then faults, then what was done to the state between two lives."""
    return 1 if kind in FAULTS else 2 if kind in DAMAGES or kind == POWER_CUT else 0, kind
