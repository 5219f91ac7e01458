"""`stream-learner slides`: what an operator does with slides in quarantine, beside a running worker or without one."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from stream_learner import config as configs
from stream_learner.publishing.commands import Commands
from stream_learner.publishing.operating import noted, show
from stream_learner.publishing.rendering import table, utc
from stream_learner.windows.kept_examples import kept_path, read_examples
from stream_learner.windows.quarantined_slides import FOLDER, QuarantinedSlide, read_slides, require

ACTIONS: tuple[tuple[str, str, dict[str, Any] | None], ...] = (
    ("list", "the slides in quarantine, and what is kept of them", None),
    ("show", "one slide: its span, why, and the examples kept", {}),
    ("requeue", "let the examples of slides into learning (never into judging)", {"nargs": "+"}),
)  # name, help, and how `slide` is given


def main(args: argparse.Namespace) -> int:
    """Runs the action; exit code 0. A slide that is not in quarantine is a ConfigError (exit 2)."""
    state = _state(args)
    slides = read_slides(state)
    if args.action == "list":
        show(args, {"slides": [asdict(slide) for slide in slides.values()]}, _list(list(slides.values())))
    elif args.action == "show":
        if args.slide not in slides:
            require(slides, args.slide)
        facts = _facts(state, slides[args.slide])
        show(args, facts, table([[name, str(value)] for name, value in facts.items()]))
    else:
        for number in args.slide:
            require(slides, number)
        inbox = Commands(state / "commands")
        ids = [inbox.submit("requeue", slide=number) for number in args.slide]
        text = (
            f"requeue of {', '.join(map(str, args.slide))} left for the worker on {state}; it acts between two slides"
        )
        show(args, {"commands": ids}, f"{text}, or at its start")
    return 0


def _state(args: argparse.Namespace) -> Path:
    """The state folder named, or the config's; one that no worker has seen is a ConfigError."""
    state = args.state if args.config is None else Path(configs.load(args.config).state)
    noted(state)
    return Path(state)


def _list(slides: list[QuarantinedSlide]) -> str:
    rows = [["slide", "start", "end", "status", "examples", "given up", "why"]]
    for s in slides:
        counts = [str(s.examples), str(s.given_up)]
        rows.append([str(s.number), utc(s.start), utc(s.end), s.status, *counts, s.reason])
    return table(rows) if slides else "no slide is in quarantine"


def _facts(state: Path, slide: QuarantinedSlide) -> dict[str, Any]:
    facts = {**asdict(slide), "start": utc(slide.start), "end": utc(slide.end)}
    if slide.size_bytes:
        kept = read_examples(kept_path(state / FOLDER, slide.kept), slide.size_bytes)
        facts["positives"] = int(np.count_nonzero(kept.label == 1))
        facts["first_click"], facts["last_click"] = utc(int(kept.time.min())), utc(int(kept.time.max()))
    return facts
