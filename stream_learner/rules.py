"""Rules across sections of the config: each returns a complaint that names the key, the value and the remedy."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from fractions import Fraction

import msgspec

from stream_learner.errors import ConfigError
from stream_learner.ingest.mapping import RecordReader
from stream_learner.race_rules import challengers
from stream_learner.settings import NOVELTY, Between, Config, Duration, Section
from stream_learner.settings.base import is_url

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RESERVED = frozenset({"user", "item", "session", "time", "label", "type", "id"})


def contradictions(config: Config) -> list[str]:
    """Everything that single keys cannot say about themselves; empty when the config can run."""
    problems = [*_finite(config, ""), *_tasks(config), *_topics(config), *_slides(config)]
    if config.learns("conversion"):
        problems += [*_aggregates(config), *_labels(config), *_features(config), *_learning(config), *_gate(config)]
    if config.learns("next_item"):
        problems += [*_next_item(config)]
    return [*problems, *_outside(config)]


def _tasks(config: Config) -> Iterator[str]:
    if config.challengers and not config.learns("conversion"):
        yield "challengers: a race of conversion models, but conversion is no task; leave them out"
    if config.tasks is not None:
        yield from _repeated("tasks", list(config.tasks))
        if config.name == config.next_item.name and {"conversion", "next_item"} <= set(config.tasks):
            yield f"next_item.name: {config.name!r} is also `name`; two models need two folders"


def _next_item(config: Config) -> Iterator[str]:
    task, types = config.next_item, _all_types(config)
    unknown = [kind for kind in task.events if kind not in types]
    if len(unknown) == len(task.events):
        known = ", ".join(sorted(types))
        yield f"next_item.events: none of {', '.join(unknown)} is a type of any mapping; known: {known}"
    if task.sessions.gap == 0:
        yield "next_item.sessions.gap: 0s; must be longer than 0"
    if task.popularity.half_life == 0:
        yield "next_item.popularity.half_life: 0s; must be longer than 0"
    if task.network.dim % task.network.heads:
        yield f"next_item.network.heads: {task.network.heads} is no divisor of dim {task.network.dim}"
    categorical = {name for topic in config.topics.values() for name in topic.categorical}
    for name in task.network.features:
        if name not in categorical:
            known = ", ".join(sorted(categorical)) or "none"
            yield f"next_item.network.features: {name!r} is no categorical feature of any mapping; known: {known}"
    yield from _repeated("next_item.network.features", task.network.features)
    if task.network.features and task.model not in ("network", "blend"):
        yield f"next_item.network.features: {task.network.features}, but model {task.model} has no vectors; use []"
    if task.network.users and task.model not in ("network", "blend"):
        yield f"next_item.network.users: {task.network.users}, but model {task.model} has no vectors; use 0"
    blend = task.blend
    if task.model == "blend" and not blend.neighbours + blend.network + blend.popularity:
        yield "next_item.blend: every weight is 0; give at least one"
    if task.gate.on_degradation != "hold" and task.model not in ("network", "blend"):
        yield (
            f"next_item.gate.on_degradation: {task.gate.on_degradation}, but model {task.model} has no network that "
            "could start again; use hold"
        )
    if task.judging.k >= task.catalogue.capacity:
        yield f"next_item.judging.k: {task.judging.k}; must be below catalogue.capacity, {task.catalogue.capacity}"


def _finite(value: object, path: str) -> Iterator[str]:
    if isinstance(value, Section):
        for field in msgspec.structs.fields(value):
            yield from _finite(getattr(value, field.name), f"{path}.{field.encode_name}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _finite(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _finite(item, path)
    elif isinstance(value, float) and not math.isfinite(value):
        yield f"{path[1:]}: {value}; must be a finite number"


def _topics(config: Config) -> Iterator[str]:
    numeric = {name for topic in config.topics.values() for name in topic.numeric}
    for name, topic in config.topics.items():
        here = f"topics.{name}"
        if not re.fullmatch(r"[A-Za-z0-9._-]{1,249}", name):
            yield f"{here}: not a valid topic name; allowed: letters, digits, '.', '_' and '-'"
        if (topic.fields.type is None) == (topic.constant_type is None):
            yield f"{here}: exactly one of fields.type and constant_type says what a record is; set the other to null"
        if topic.constant_type is None and not topic.types:
            yield f"{here}.types: empty, so every record would be ignored; list at least one source type"
        for target in (*topic.types.values(), *([topic.constant_type] if topic.constant_type else [])):
            if not _NAME.fullmatch(target):
                yield f"{here}.types: {target!r} is not a name; allowed: letters, digits and '_'"
        for feature in (*topic.categorical, *topic.numeric):
            if not _NAME.fullmatch(feature) or feature in _RESERVED:
                reserved = ", ".join(sorted(_RESERVED))
                yield f"{here}: feature name {feature!r}; allowed: letters, digits, '_', and not {reserved}"
        for feature in topic.categorical:
            if feature in numeric:
                yield f"{here}.categorical.{feature}: also a numeric feature; give one of them another name"
        try:
            RecordReader(name, topic)
        except ConfigError as error:
            yield str(error)
        if (
            config.labels.source == "field"
            and topic.fields.label is None
            and config.examples.of in _types(config, name)
        ):
            yield f"{here}.fields.label: null, but labels.from is `field`; give its path"


def _types(config: Config, topic_name: str) -> set[str]:
    topic = config.topics[topic_name]
    return {topic.constant_type} if topic.constant_type else set(topic.types.values())


def _all_types(config: Config) -> set[str]:
    return set().union(*(_types(config, name) for name in config.topics))


def _slides(config: Config) -> Iterator[str]:
    slides = config.slides
    if slides.slide == 0:
        yield "slides.slide: 0s; must be longer than 0"
    if slides.by_count is not None:
        yield from _count("size", slides.by_count.size)
        if slides.by_count.first_size:
            yield from _count("first_size", slides.by_count.first_size)
    if slides.max_jump == 0:
        yield "slides.max_jump: 0s; must be longer than 0"


def _count(key: str, value: str | int) -> Iterator[str]:
    try:
        size = _fraction(value)
    except (ValueError, ZeroDivisionError):
        yield f"slides.by_count.{key}: {value!r}; expected an integer or a fraction such as 28572/100"
    else:
        if size < 1:
            yield f"slides.by_count.{key}: {value}; at least 1"


def _fraction(size: str | int) -> Fraction:
    """Exponents are refused: 1e999999999 would be a number of a gigabyte."""
    if isinstance(size, str) and "e" in size.lower():
        raise ValueError(size)
    return Fraction(size)


def _aggregates(config: Config) -> Iterator[str]:
    known = _id_names(config)
    aggregates = config.aggregates
    for entry in aggregates.keys:
        parts = entry.split("*")
        if len(parts) > 2 or any(part not in known for part in parts) or len(set(parts)) != len(parts):
            yield f"aggregates.keys: {entry!r}; expected one of {', '.join(sorted(known))}, or a pair such as user*item"
    yield from _repeated("aggregates.keys", aggregates.keys)
    yield from _repeated("aggregates.windows", [str(w) for w in aggregates.windows])
    yield from _repeated("aggregates.half_lives", [str(h) for h in aggregates.half_lives])
    yield from _repeated("aggregates.counts", aggregates.counts or [])
    yield from _repeated("export.aggregates", config.export.aggregates)
    types = _all_types(config)
    for name in aggregates.counts or []:
        if name not in types:
            yield f"aggregates.counts: {name!r} is no type of any mapping; known: {', '.join(sorted(types))}"
    for name in aggregates.as_of:
        if name not in types:
            yield f"aggregates.as_of.{name}: no type of any mapping; known: {', '.join(sorted(types))}"
    for window in aggregates.windows:
        if config.slides.by_count is None and window < config.slides.slide:
            yield f"aggregates.windows: {window} is shorter than slides.slide {config.slides.slide}"
        if window > aggregates.expire_after:
            yield f"aggregates.expire_after: {aggregates.expire_after} is shorter than the window {window}"
    for half_life in aggregates.half_lives:
        if half_life > aggregates.expire_after:
            yield f"aggregates.expire_after: {aggregates.expire_after} is shorter than the half-life {half_life}"
    if aggregates.ranks and not aggregates.half_lives:
        yield "aggregates.ranks: needs aggregates.half_lives; a rank is that of a decayed count"
    yield from _between("distinct", aggregates.distinct, aggregates.keys)
    yield from _between("shares", aggregates.shares, aggregates.keys)
    yield from _between("ranks", aggregates.ranks, aggregates.keys)
    for near in aggregates.neighbours:
        for name in (near.key, near.of):
            if name not in known:
                yield f"aggregates.neighbours: {name!r} is no id; known: {', '.join(sorted(known))}"
        if near.key == near.of:
            yield f"aggregates.neighbours: {near.key} of itself; `of` is what its labels are on"
    for entry in config.export.aggregates:
        if entry not in aggregates.keys:
            yield f"export.aggregates: {entry!r} is not in aggregates.keys ({', '.join(aggregates.keys)})"


def _between(path: str, entries: Sequence[Between], keys: list[str]) -> Iterator[str]:
    for entry in entries:
        needed = f"{entry.key}*{entry.of}"
        if not {needed, f"{entry.of}*{entry.key}"} & set(keys):
            yield f"aggregates.{path}: {entry.key} of {entry.of} needs {needed} in aggregates.keys"


def _repeated(path: str, values: list[str]) -> Iterator[str]:
    for value in dict.fromkeys(v for v in values if values.count(v) > 1):
        yield f"{path}: {value} is listed more than once"


def _id_names(config: Config) -> set[str]:
    return {"user", "item", "session"} | {name for topic in config.topics.values() for name in topic.categorical}


def _labels(config: Config) -> Iterator[str]:
    types = _all_types(config)
    if config.examples.of not in types:
        yield f"examples.of: {config.examples.of!r} is no type of any mapping; known: {', '.join(sorted(types))}"
    yield from _label_mode(config)
    if config.labels.source == "field":
        return
    positive = config.labels.positive
    if positive not in types:
        yield f"labels.positive: {positive!r} is no type of any mapping; known: {', '.join(sorted(types))}"
    if config.labels.positive == config.examples.of:
        yield f"labels.positive: {config.labels.positive!r} is also examples.of; a click cannot be its own purchase"
    if config.labels.horizon == 0:
        yield "labels.horizon: 0s; must be longer than 0"
    if config.labels.source == "at_once" and config.aggregates.as_of.get(config.labels.positive) == "slide_end":
        yield f"aggregates.as_of.{positive}: slide_end shows an example its own label; use event or slide_start"
    if (cancel := config.labels.cancel) is None:
        return
    if cancel not in types:
        yield f"labels.cancel: {cancel!r} is no type of any mapping; known: {', '.join(sorted(types))}"
    if cancel in (positive, config.examples.of):
        yield f"labels.cancel: {cancel!r} is also labels.positive or examples.of; give it a type of its own"


def _label_mode(config: Config) -> Iterator[str]:
    labels = config.labels
    if labels.source == "field":
        if labels.mode != "wait":
            yield f"labels.mode: {labels.mode}, but with labels.from: field every label comes with its event; use wait"
        if labels.cancel is not None:
            yield f"labels.cancel: {labels.cancel!r}, but labels.from: field knows no purchases to take back; use null"
        return
    if labels.mode == "es_dfm" and not 0 < labels.elapsed < labels.horizon:
        yield f"labels.elapsed: {labels.elapsed}; expected more than 0s and less than labels.horizon {labels.horizon}"
    for name, topic in config.topics.items():
        if labels.mode == "oracle" and topic.fields.label is None and config.examples.of in _types(config, name):
            yield f"topics.{name}.fields.label: null, but labels.mode is oracle; give the path of the label to come"


def _features(config: Config) -> Iterator[str]:
    known = _id_names(config)
    for name in config.features.ids:
        if name not in known:
            yield f"features.ids.{name}: no such id; known: {', '.join(sorted(known))}"
    yield from _id_tables(config)
    numeric = {name for topic in config.topics.values() for name in topic.numeric}
    for name in config.features.numeric or {}:
        if name not in numeric:
            named = ", ".join(sorted(numeric)) or "none"
            yield f"features.numeric.{name}: no numeric feature of any mapping; known: {named}"
    for path, patterns in (
        ("features.aggregates", config.features.aggregates or []),
        ("drift.aggregates", config.drift.aggregates),
    ):
        for pattern in patterns:
            try:
                re.compile(pattern)
            except (re.error, OverflowError, RecursionError) as error:
                yield f"{path}: {pattern!r} is not a regular expression: {error}"
    if not (config.features.ids or numeric or config.aggregates.keys or config.features.hour_of_day):
        yield "features: nothing for the model to see; name ids, numeric features or aggregates"


def _id_tables(config: Config) -> Iterator[str]:
    for name, feature in config.features.ids.items():
        for key, value, off in (("admit_after", feature.admit_after, 1), ("expire_after", feature.expire_after, None)):
            if feature.table == "hashed" and value != off:
                yield f"features.ids.{name}.{key}: {value}, but a hashed table knows no ids; use table: exact"
        if feature.expire_after == 0:
            yield f"features.ids.{name}.expire_after: 0s; must be longer than 0"


_NETWORKS = ("logistic", "mlp", "wide_deep", "dcn_v2", "deepfm")


def _learning(config: Config) -> Iterator[str]:
    network = config.learning.network
    if network not in _NETWORKS and not re.fullmatch(r"[\w.]+:\w+", network):
        yield f"learning.network: {network!r}; expected {', '.join(_NETWORKS)} or module:function"
    if network not in _NETWORKS and config.learning.ensemble.members > 1:
        yield f"learning.ensemble.members: {config.learning.ensemble.members} of {network!r}; own networks have 1"
    if config.learning.optimizer == "ftrl" and network != "logistic":
        yield f"learning.optimizer: ftrl forgets a network's first weights; use logistic, or not {network!r} with ftrl"
    yield from _plasticity(config)
    yield from _replay(config)
    learning = config.learning
    if learning.optimizer == "ftrl" and learning.warm_restart.boost > 1:
        yield f"learning.warm_restart.boost: {learning.warm_restart.boost:g}, but ftrl's weights know no step; use 1"
    if learning.optimizer == "ftrl" and learning.table_optimizer is not None:
        yield f"learning.table_optimizer: {learning.table_optimizer}, but ftrl is for all weights; use null"
    if learning.negative_share < 1 and config.labels.mode in ("duplicate", "fnc"):
        yield f"learning.negative_share: {learning.negative_share:g}, but {config.labels.mode} learns every negative"
    yield from challengers(config)
    yield from _warm_start(config)
    if learning.core_share is not None and config.slides.by_count is not None:
        yield "learning.core_share: slides by count span no time to take a share of; use learning.budget, and null"
    yield from _slices(config)
    span = config.judging.span
    for key, value in (("start", span.start), ("end", span.end)):
        if value is not None and _time(value) is None:
            yield f"judging.span.{key}: {value!r} is not an ISO 8601 time"
    start, end = _time(span.start), _time(span.end)
    if start is not None and end is not None and start >= end:
        yield f"judging.span: start {span.start} is not before end {span.end}"


def _warm_start(config: Config) -> Iterator[str]:
    until = config.learning.warm_start.until
    if until is None:
        return
    if _time(until) is None:
        yield f"learning.warm_start.until: {until!r}; expected an ISO 8601 time such as 2026-11-01T00:00:00Z"
    if not config.replay.capacity:
        yield "learning.warm_start: goes through the replay buffer again, but replay.capacity is 0; give it room"
    if config.replay.policy in ("stratified", "dark"):
        yield f"learning.warm_start: replay.policy {config.replay.policy} holds no plain sample of history; use uniform"


def _plasticity(config: Config) -> Iterator[str]:
    learning, renewal = config.learning, config.learning.plasticity
    does = renewal.shrink < 1 or renewal.perturb > 0 or renewal.dormant is not None
    if renewal.every is not None and not does:
        yield f"learning.plasticity.every: {renewal.every}, but nothing is renewed; give shrink, perturb or dormant"
    if renewal.every is None and does:
        yield "learning.plasticity.every: null, so nothing is ever renewed; give the rows between two renewals"
    if renewal.dormant is not None and (learning.network not in _NETWORKS[1:] or not learning.hidden):
        yield f"learning.plasticity.dormant: {learning.network!r} has no hidden layers of the project's; set it to null"
    if does and learning.optimizer == "ftrl":
        yield "learning.plasticity: ftrl's weights follow from its slots and cannot be renewed; use another optimizer"


def _replay(config: Config) -> Iterator[str]:
    replay = config.replay
    categorical = {name for topic in config.topics.values() for name in topic.categorical}
    if replay.policy == "stratified" and replay.strata != "label" and replay.strata not in categorical:
        allowed = ", ".join(["label", *sorted(categorical)])
        yield f"replay.strata: {replay.strata!r} is no categorical feature of any mapping; allowed: {allowed}"
    if replay.policy == "dark" and config.labels.mode != "wait":
        yield (
            f"replay.policy: dark, but labels.mode is {config.labels.mode}: what is learned before its label is final "
            "leaves no logits to hold to; use another policy, or labels.mode: wait"
        )
    if replay.half_life == 0:
        yield "replay.half_life: 0s; must be longer than 0"


def _gate(config: Config) -> Iterator[str]:
    """A gate that nothing can pass, or that lets everything pass, is refused here and not found out in a year."""
    gate = config.gate
    if gate.calibration is not None and not 0 <= gate.calibration[0] < gate.calibration[1]:
        yield f"gate.calibration: {list(gate.calibration)}; expected 0 <= low < high"
    if gate.min_positives > gate.min_examples:
        yield f"gate.min_positives: {gate.min_positives} is more than min_examples {gate.min_examples}"
    if gate.mode != "always" and gate.max_ne is None and gate.min_auc is None:
        yield "gate.max_ne: null, and so is min_auc: any first version would pass; give at least one of them"
    if gate.min_auc is not None and not config.judging.windows:
        yield f"gate.min_auc: {gate.min_auc} is taken over the longest of judging.windows, which is empty; name one"
    for name, floor in gate.slices.items():
        feature, _, value = name.partition("=")
        if feature not in config.judging.slices or not value:
            sliced = ", ".join(config.judging.slices) or "none"
            yield f"gate.slices.{name}: expected feature=value, the feature one of judging.slices ({sliced})"
        elif feature in NOVELTY and value not in ("yes", "no", "missing"):
            yield f"gate.slices.{name}: {feature} is yes, no or missing"
        if floor.max_ne is None and floor.max_excess is None and floor.calibration is None:
            yield f"gate.slices.{name}: nothing configured; give max_ne, max_excess or calibration"
        if floor.calibration is not None and not 0 <= floor.calibration[0] < floor.calibration[1]:
            yield f"gate.slices.{name}.calibration: {list(floor.calibration)}; expected 0 <= low < high"
    if gate.max_interval is not None and gate.max_interval <= gate.min_interval:
        yield f"gate.max_interval: {gate.max_interval} is not longer than min_interval {gate.min_interval}"
    if config.slides.by_count is None and gate.evidence_window < config.slides.slide:
        yield f"gate.evidence_window: {gate.evidence_window} is shorter than slides.slide {config.slides.slide}"


def _slices(config: Config) -> Iterator[str]:
    judging = config.judging
    categorical = {name for topic in config.topics.values() for name in topic.categorical}
    allowed = ", ".join([*sorted(categorical), *NOVELTY])
    for name in judging.slices:
        if name not in NOVELTY and name not in categorical:
            yield f"judging.slices: {name!r} is no categorical feature of any mapping; allowed: {allowed}"
    yield from _repeated("judging.slices", judging.slices)
    for name, values in judging.slice_values.items():
        if name not in judging.slices or name in NOVELTY:
            yield f"judging.slice_values.{name}: not a categorical feature in judging.slices"
        yield from _repeated(f"judging.slice_values.{name}", values)
        if any(value in ("", "other", "missing") for value in values):
            yield f"judging.slice_values.{name}: '', other and missing are slices of their own; leave them out"


def _outside(config: Config) -> Iterator[str]:
    start = config.source.start
    if start not in ("earliest", "latest") and _time(start) is None:
        yield f"source.start: {start!r}; expected earliest, latest or an ISO 8601 time"
    if config.privacy.pseudonymise and (config.privacy.key is None or len(config.privacy.key) < 16):
        yield "privacy.key: needed by privacy.pseudonymise, at least 16 characters; give it as ${ENV_VAR}"
    if config.dead_letters.kind == "kafka" and config.source.kind != "kafka":
        yield "dead_letters.kind: kafka needs source.kind kafka; use file"
    if config.dedupe.window is not None and all(topic.fields.id is None for topic in config.topics.values()):
        yield f"dedupe.window: {config.dedupe.window}, but no topic maps fields.id; name the field or set null"
    yield from _places(config)
    drift = config.drift
    if drift.interval > drift.run_length:
        yield f"drift.interval: {drift.interval} is longer than drift.run_length {drift.run_length}"
    lease = config.lease
    if lease.heartbeat * 3 > lease.timeout:
        yield f"lease.heartbeat: {lease.heartbeat} is more than a third of lease.timeout {lease.timeout}"
    for path, value in _positive(config):
        if value == 0:
            yield f"{path}: 0s; must be longer than 0"


def _places(config: Config) -> Iterator[str]:
    if is_url(config.state):
        yield (
            f"state: {config.state}: a URL, but journal, lease and snapshots need a POSIX volume; name a folder, and "
            "give the URL as checkpoints.root"
        )
    root = config.checkpoints.root
    if root is None or not is_url(root):
        if config.checkpoints.options:
            yield f"checkpoints.options: for a URL only, but checkpoints.root is {root or 'null'}; leave them out"
        return
    scheme, _, place = root.partition("://")
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme) or not place.strip("/"):
        yield f"checkpoints.root: {root!r}; expected a URL such as s3://bucket/folder"
    elif scheme in ("file", "local"):
        yield f"checkpoints.root: {root!r}; give a folder of this machine as a path"
    elif "@" in place.partition("/")[0] and scheme not in ("abfs", "abfss", "az", "adl"):
        yield "checkpoints.root: holds a user or password; give those in checkpoints.options, as ${ENV_VAR}"
    elif any(character in place for character in "?#*[]"):
        yield f"checkpoints.root: {root!r}; expected a URL without query and wildcards"


def _positive(config: Config) -> Iterator[tuple[str, Duration]]:
    yield "gate.interval", config.gate.interval
    yield "gate.evidence_window", config.gate.evidence_window
    if config.canary.duration is not None:
        yield "canary.duration", config.canary.duration
    if config.next_item.canary.duration is not None:
        yield "next_item.canary.duration", config.next_item.canary.duration
    yield "snapshot.interval", config.snapshot.interval
    yield "lease.timeout", config.lease.timeout
    yield "lease.heartbeat", config.lease.heartbeat
    yield "shutdown.timeout", config.shutdown.timeout
    yield "drift.window", config.drift.window
    yield "drift.fixed", config.drift.fixed
    yield "drift.interval", config.drift.interval
    yield "drift.run_length", config.drift.run_length
    yield "observing.stuck_after", config.observing.stuck_after
    for window in config.judging.windows:
        yield "judging.windows", window
    for window in config.aggregates.windows:
        yield "aggregates.windows", window
    for half_life in config.aggregates.half_lives:
        yield "aggregates.half_lives", half_life


def _time(text: str | None) -> datetime | None:
    """An ISO 8601 time, naive = UTC; None for anything else."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
