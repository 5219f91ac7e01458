"""A card as Markdown and as one HTML page that needs nothing else."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from stream_learner.durable import write_file
from stream_learner.publishing.card import HTML, MARKDOWN, Card, Part, Reliability, Section

_SIDE, _MARGIN = 300, 44  # of the calibration plot, px
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
div { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; margin: .5rem 0; }
th, td { text-align: left; padding: .2rem .6rem; border-bottom: 1px solid #8884; overflow-wrap: anywhere; }
svg { max-width: 100%; } svg text { fill: currentColor; font-size: 11px; }
"""


def write(folder: Path, card: Card) -> None:
    """Puts `card.md` and `card.html` beside a version's graph. Raises RetryableError when the disk refuses."""
    write_file(folder / MARKDOWN, markdown(card).encode())
    write_file(folder / HTML, page(card).encode())


def markdown(card: Card) -> str:
    """`card.md`."""
    parts = [f"# {card.title}", card.summary]
    for section in card.sections:
        parts.append(f"## {section.title}")
        parts += [_markdown(part) for part in section.parts if not isinstance(part, Reliability)]
    return "\n\n".join(parts) + "\n"


def page(card: Card) -> str:
    """`card.html`."""
    title = html.escape(card.title)
    body = "\n".join(_section(section) for section in card.sections)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        '<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head>\n"
        f"<body><h1>{title}</h1>\n<p>{html.escape(card.summary)}</p>\n{body}\n</body></html>\n"
    )


def _markdown(part: Part) -> str:
    if isinstance(part, Reliability):
        return ""
    if isinstance(part, str):
        return part
    rows = [part.header, ["---"] * len(part.header), *part.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def _section(section: Section) -> str:
    return f"<h2>{html.escape(section.title)}</h2>\n" + "\n".join(_html(part) for part in section.parts)


def _html(part: Part) -> str:
    if isinstance(part, str):
        return f"<p>{html.escape(part)}</p>"
    if isinstance(part, Reliability):
        return _plot(part.points)
    head = _row(part.header, "th") if any(part.header) else ""
    return "<div><table>" + head + "".join(_row(row, "td") for row in part.rows) + "</table></div>"


def _row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _plot(points: Sequence[Mapping[str, float]]) -> str:
    """Observed against predicted rate with the diagonal, both axes from 0 to the largest."""
    most = max(max(p["predicted"], p["observed"]) for p in points) or 1.0
    whole = _SIDE + _MARGIN

    def place(share: float) -> float:
        return _SIDE * share / most

    dots = "".join(
        f'<circle cx="{_MARGIN + place(p["predicted"]):.1f}" cy="{_SIDE - place(p["observed"]):.1f}" '
        f'r="{_radius(p["n"], points):.1f}" fill="#2b6cb0" fill-opacity=".7"/>'
        for p in points
    )
    label = "; ".join(f"{p['predicted']:.4g} predicted, {p['observed']:.4g} observed" for p in points)
    return (
        f'<svg width="{whole + 16}" height="{whole}" viewBox="0 0 {whole + 16} {whole}" role="img" '
        f'aria-label="{html.escape(label)}">'
        f'<path d="M{_MARGIN} 0V{_SIDE}H{whole}M{_MARGIN} {_SIDE}L{whole} 0" fill="none" stroke="#888"/>{dots}'
        f'<text x="{whole}" y="{_SIDE + 16}" text-anchor="end">{most:.3g}</text>'
        f'<text x="{_MARGIN - 6}" y="10" text-anchor="end">{most:.3g}</text>'
        f'<text x="{_MARGIN}" y="{_SIDE + 32}">predicted, against observed upwards</text></svg>'
    )


def _radius(n: float, points: Sequence[Mapping[str, float]]) -> float:
    """Area by number of examples."""
    return 6.0 * math.sqrt(n / max(p["n"] for p in points))
