"""Model keys that change under a state: which may, and how live runs and replays come through it alike.

A worker that finds its snapshot made under other model keys goes on under those of the snapshot, as the journal has
them, until something new may be decided. Then, with `snapshot.on_config_change: migrate`, the change is journaled with
old and new values, takes effect before the next slide, and the worker restores its snapshot under the new config. A
replay comes to the journal's entry and does the same at the same slide.

Only keys migrate on which no stored shape, id, feature or order depends (`MIGRATES`); the rest is refused, whatever the
config says.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from stream_learner import config as configs
from stream_learner.errors import StateError
from stream_learner.journal import AnyEntry, ConfigChange
from stream_learner.settings import Config

MIGRATES = frozenset({
    # read afresh by every slide
    "learning.learning_rate", "learning.table_learning_rate", "learning.l2", "learning.dropout", "learning.batch_size",
    "learning.passes", "learning.blank_rate", "learning.budget", "replay.ratio", "replay.half_life",
    "replay.priority_exponent", "replay.correction", "replay.alpha", "replay.beta", "aggregates.smoothing",
    "judging.baseline_smoothing", "learning.plasticity.every", "learning.plasticity.shrink",
    "learning.plasticity.perturb", "learning.plasticity.dormant",
    # read afresh by every verdict; a proof that has begun keeps its `alpha`
    "gate.mode", "gate.margin", "gate.interval", "gate.min_interval", "gate.max_interval", "gate.cool_down",
    "gate.min_examples", "gate.min_positives", "gate.max_ne", "gate.min_auc", "gate.calibration", "gate.max_psi",
    "gate.drift_hold", "drift.interval", "drift.run_length", "drift.min_psi", "drift.min_prediction_psi",
    "drift.min_share", "drift.min_auc", "drift.bins", "drift.min_examples",
    "gate.on_degradation", "gate.catch_up_steps", "canary.max_shift", "canary.min_examples",
    # bounds and spans: what is held is cut to them at the next slide, or grows into them
    "replay.capacity", "replay.max_bytes", "aggregates.expire_after", "aggregates.max_keys", "judging.windows",
    "judging.exact_max", "judging.baseline_keys",
})  # fmt: skip

Values = dict[str, Any]  # by key: a dotted path, as `configs.leaves` writes it


class ConfigSwitched(Exception):
    """No failure: the worker is to be started again, in place, with these values of model keys."""

    def __init__(self, values: Values) -> None:
        super().__init__(", ".join(sorted(values)))
        self.values = values


def differences(before: dict[str, Any], after: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Old and new value of every key that differs between two plain configs (`configs.model_head`)."""
    old, new = configs.leaves(before), configs.leaves(after)
    return {
        key: (old.get(key), new.get(key)) for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)
    }


def migrates(key: str, old: Any, new: Any) -> bool:
    """Whether a state can be carried over this change. Dropout that comes or goes changes the network's variables."""
    return key in MIGRATES and (key != "learning.dropout" or bool(old) == bool(new))


def change(before: Config, after: Config, slide: int) -> ConfigChange:
    """The journal entry of a change that takes effect before a slide."""
    head, now = configs.model_head(before), configs.model_head(after)
    keys = differences(head["config"], now["config"])
    _require(keys, after)
    return ConfigChange(slide=slide, before=head["config_hash"], after=now["config_hash"], keys=keys)


def new_values(entry: ConfigChange) -> Values:
    return {key: new for key, (_, new) in entry.keys.items()}


def resolve(head: dict[str, Any], config: Config, wanted: Config, pending: Sequence[AnyEntry]) -> ConfigChange | None:
    """What leads from the config of a snapshot (`head`) to `config`, under which it is to be restored.

    None: nothing has changed. The first of the `pending` journal entries: it is that change; the snapshot was made for
    it. Raises ConfigSwitched where slides come first that were, or are, to be worked under the snapshot's config, and
    StateError where `wanted`, the user's config, cannot follow the journal's.
    """
    present = configs.model_head(config)
    if head["config_hash"] == present["config_hash"]:
        return None
    first = pending[0] if pending else None
    if isinstance(first, ConfigChange) and (first.before, first.after) == (head["config_hash"], present["config_hash"]):
        return first
    in_force = {**configs.leaves(head["config"]), **_last_values(pending)}
    user = configs.leaves(configs.model_head(wanted)["config"])
    asked = {k: (in_force.get(k), user.get(k)) for k in in_force.keys() | user.keys() if in_force.get(k) != user.get(k)}
    changed = differences(head["config"], present["config"])
    if asked or not changed:
        _require(asked, wanted)
    raise ConfigSwitched({key: old for key, (old, _) in changed.items()})


def begin(config: Config, wanted: Config, entries: Sequence[AnyEntry]) -> Config:
    """The user's config for a new state under an earlier run's journal: `wanted` as the journal leaves it at its end.

    Raises ConfigSwitched with the values to begin with where `config` does not have them, and StateError where
    `wanted` has neither the first nor the last value of a key.
    """
    first, last = _first_values(entries), _last_values(entries)
    now, user = (configs.leaves(configs.model_head(one)["config"]) for one in (config, wanted))
    for key, value in first.items():
        if user.get(key) not in (value, last[key]):
            ends = f"the journal begins with {value!r} and ends with {last[key]!r}"
            raise StateError(f"{key} is {user.get(key)!r} in the config; {ends}: give it one of them")
    if any(now.get(key) != value for key, value in first.items()):
        raise ConfigSwitched(first)
    return configs.with_values(wanted, last)


def _first_values(entries: Iterable[AnyEntry]) -> Values:
    first: Values = {}
    for entry in entries:
        if isinstance(entry, ConfigChange):
            first = {**{key: old for key, (old, _) in entry.keys.items()}, **first}
    return first


def _last_values(entries: Iterable[AnyEntry]) -> Values:
    last: Values = {}
    for entry in entries:
        if isinstance(entry, ConfigChange):
            last |= new_values(entry)
    return last


def _require(asked: dict[str, tuple[Any, Any]], config: Config) -> None:
    """Raises StateError unless every change asked for may, and is to, be carried over."""
    fixed = sorted(key for key, values in asked.items() if not migrates(key, *values))
    migrate = config.snapshot.on_config_change == "migrate"
    if asked and not fixed and migrate:
        return
    ways = "Put them back, or start with a new state folder (operational keys may change freely)"
    if fixed and migrate:
        ways = f"No state can be carried over a change of {', '.join(fixed)}. {ways}"
    elif asked and not fixed:
        ways = f"{ways}; or carry the state over with snapshot.on_config_change: migrate"
    raise StateError(
        f"the snapshot in {config.state} was made under other model keys: {', '.join(sorted(asked)) or 'privacy.key'}. "
        f"{ways}"
    )
