"""Rules of `challengers` across sections of the config, as those of `rules.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from stream_learner.settings import Config

_MOST = 8


def challengers(config: Config) -> Iterator[str]:
    """What a race of several models cannot be judged fairly with."""
    if not config.challengers:
        return
    if len(config.challengers) > _MOST:
        yield f"challengers: {len(config.challengers)}; at most {_MOST}, each costs a whole model"
    for name in config.challengers:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", name) or name == "candidate":
            yield f"challengers.{name}: not a name; allowed: small letters, digits and '_', and not `candidate`"
    if config.labels.mode != "wait":
        yield (
            f"challengers: labels.mode is {config.labels.mode}, where only the scores an example got as it arrived are "
            "evidence, and challengers' are not kept; use wait"
        )
    if config.learning.calibration_rows:
        yield "challengers: learning.calibration_rows learns from arrival scores, which challengers' are not; use 0"
    if config.gate.on_degradation != "hold":
        action = config.gate.on_degradation
        yield f"gate.on_degradation: {action}, but a champion may be of a challenger's shape; with challengers use hold"
    if config.gate.min_auc is not None:
        yield f"gate.min_auc: {config.gate.min_auc:g}, but no AUC is taken of challengers; use null"
