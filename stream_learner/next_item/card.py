"""The card of a ranking version: what it has in common with any, how it ranks, what came and went, what moves it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.next_item.model import RankingModel
from stream_learner.next_item.sessions import F32, Asked
from stream_learner.publishing import card as cards
from stream_learner.publishing.card import Card, Section, Table, number
from stream_learner.publishing.manifest import Manifest

_ASKED = 16  # sessions whose items are left out one after the other
_HOW = (
    "The item a session goes on to is ranked among the whole catalogue as its event arrives, before it is learned. "
    "`candidate` is this version as it learned, `champion` the one before. Scores put items in order; they are shares "
    "and no probabilities, so there is no calibration to tell."
)
_USER = "the user"
_NOTHING = "No session to look at."


@dataclass(frozen=True)
class Listed:
    """What a model can recommend: fingerprints [n], ascending, and each item's share of the events."""

    items: NDArray[np.int64]
    share: F32

    @classmethod
    def of(cls, model: RankingModel) -> Listed:
        items, share = model.by_row(), model.variables["items/share"].numpy()
        rows = np.flatnonzero((items != 0) & (share >= 0))
        rows = rows[np.argsort(items[rows], kind="stable")]
        return cls(items[rows], share[rows])


@dataclass(frozen=True)
class Turnover:
    """How the catalogue changed since the version before."""

    new: int
    gone: int
    moved_bits: float  # Jensen-Shannon divergence of the items' shares, 0 to 1


@dataclass(frozen=True)
class Ranked:
    """What a version says when it is asked. `kept`: of the best k, the share that stays when items are left out."""

    k: int
    kept: dict[str, float]
    sessions: int


def turnover(before: Listed | None, after: Listed) -> Turnover | None:
    """None where there was no version before."""
    if before is None:
        return None
    both = np.union1d(before.items, after.items)
    shares = np.zeros((2, len(both)))
    for row, side in zip(shares, (before, after), strict=True):
        row[np.searchsorted(both, side.items)] = side.share
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1e-12)
    moved = _entropy_bits(shares.mean(axis=0)) - (_entropy_bits(shares[0]) + _entropy_bits(shares[1])) / 2
    new = len(np.setdiff1d(after.items, before.items, assume_unique=True))
    gone = len(np.setdiff1d(before.items, after.items, assume_unique=True))
    return Turnover(new, gone, float(moved))


def ranked(model: RankingModel, sessions: Asked, k: int) -> Ranked:
    """Asks a version about sessions, and again with some of their items, or the user, left out (occlusion)."""
    sessions = sessions.take(slice(-_ASKED, None))
    best = _best(model, sessions, k)
    kept = {}
    for name, without in _occlusions(sessions).items():
        differs = (without.recent != sessions.recent).any(axis=1) | (without.user != sessions.user)
        changed = np.flatnonzero(differs)
        if len(changed):
            again = _best(model, without.take(changed), k)
            kept[name] = float(np.mean([_overlap(best[at], others) for at, others in zip(changed, again, strict=True)]))
    if model.network is None or model.network.users is None:
        kept.pop(_USER, None)  # it is not even looked at
    return Ranked(k, kept, len(sessions))


def card(manifest: Manifest, window: str, changed: Turnover | None, told: Ranked) -> Card:
    """All that is told, in reading order. `window`: the span of `next_item.judging`."""
    quality = [_quality(manifest.metrics, window), _slices(manifest.metrics, window), _catalogue(manifest.metrics)]
    if manifest.rollback_of is not None:
        quality = [Section("Quality", [cards.files_of(manifest.rollback_of)])]
    sections = [cards.lineage(manifest), cards.seen(manifest), *quality, _changed(changed), _moved(told)]
    title = f"{manifest.model}, version {manifest.version}"
    return Card(title, cards.summary(manifest), [*sections, cards.verdict(manifest)])


def _occlusions(sessions: Asked) -> dict[str, Asked]:
    """The same sessions without some of their items; those that follow move up."""
    recent = sessions.recent
    nothing = np.zeros((len(recent), 1), np.uint64)
    only = np.zeros_like(recent)
    only[:, :1] = recent[:, :1]
    cases = {"the latest item": np.concatenate([recent[:, 1:], nothing], axis=1)}
    if recent.shape[1] > 1:
        cases["the item before it"] = np.concatenate([recent[:, :1], recent[:, 2:], nothing], axis=1)
        cases["all but the latest item"] = only
    cases["the whole session"] = np.zeros_like(recent)
    return {**{name: Asked(items, sessions.user) for name, items in cases.items()}, _USER: Asked.by_nobody(recent)}


def _best(model: RankingModel, sessions: Asked, k: int) -> list[NDArray[np.int32]]:
    """The rows that a model recommends to each session, k or as many items as there are."""
    rows, scores = model.top(sessions, k)
    return [row[np.isfinite(score)] for row, score in zip(rows, scores, strict=True)]


def _overlap(one: NDArray[np.int32], other: NDArray[np.int32]) -> float:
    return len(np.intersect1d(one, other)) / max(len(one), 1)


def _entropy_bits(shares: NDArray[np.float64]) -> float:
    there = shares[shares > 0]
    return float(-(there * np.log2(there)).sum())


def _names(metrics: Mapping[str, Any]) -> list[str]:
    return [name for name in metrics if "@" in name]


def _quality(metrics: Mapping[str, Any], window: str) -> Section:
    by_model = {f"candidate, last {window}": metrics}
    by_model |= {f"{model}, lifetime": values for model, values in metrics.get("lifetime", {}).items()}
    names = [*_names(metrics), "n"]
    rows = [(model, *(number(values.get(name)) for name in names)) for model, values in by_model.items()]
    return Section("Quality", [_HOW, Table(("model, over", *names), rows)])


def _slices(metrics: Mapping[str, Any], window: str) -> Section:
    names = [*_names(metrics), "n"]
    rows = [(part, *(number(values.get(name)) for name in names)) for part, values in metrics.get("slices", {}).items()]
    return Section("Quality by slice", [f"The candidate's, over the last {window}.", Table(("slice", *names), rows)])


def _catalogue(metrics: Mapping[str, Any]) -> Section:
    facts = {
        "Items that can be recommended": metrics.get("catalogue"),
        "Share of them in any ranking of the last slide": metrics.get("coverage"),
        "Mean surprise of what was ranked, bits": metrics.get("novelty_bits"),
    }
    return Section("Catalogue", [Table(("", ""), [(name, number(value)) for name, value in facts.items()])])


def _changed(changed: Turnover | None) -> Section:
    if changed is None:
        return Section("Drift", ["There was no version before to hold the catalogue against."])
    told = (
        f"Since the version before {changed.new:,} items are new and {changed.gone:,} are gone; what is popular moved "
        f"by {number(changed.moved_bits)} bits (Jensen-Shannon divergence of the items' shares: 0 = not at all, 1 = no "
        "item in common)."
    )
    return Section("Drift", [told])


def _moved(told: Ranked) -> Section:
    if not told.kept:
        return Section("What moves the recommendations", [_NOTHING])
    how = (
        f"{told.sessions} of the latest sessions were asked for their best {told.k} once more with items left out: the "
        "less stays of what was listed, the more those items decided."
    )
    rows = [(name, number(value)) for name, value in told.kept.items()]
    return Section(
        "What moves the recommendations", [how, Table(("left out", f"share of the best {told.k} kept"), rows)]
    )
