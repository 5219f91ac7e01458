"""YAML -> frozen typed config (`settings.Config`), checked before any I/O but reading the file.

Every complaint is a `ConfigError` (exit 2) that names the path, the value and what is allowed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any

import msgspec
import yaml

from stream_learner.errors import ConfigError
from stream_learner.events import EventSchema
from stream_learner.rules import contradictions
from stream_learner.settings import Config, Duration, Secret, Section
from stream_learner.settings.base import is_url, revealed, silenced

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_MAX_VALUES = 100_000  # in a config, aliases written out; the whole of default.yaml has some 200
_MAX_BITS = 1024  # of an integer; Python refuses to print much longer ones
_PATH = re.compile(r" - at `\$(.*)`$")


def load(path: str | Path, environ: Mapping[str, str] = os.environ) -> Config:
    """The config in a file. Raises ConfigError for anything wrong with it."""
    return parse(read(path), str(path), environ)


def read(path: str | Path) -> str:
    """The text of a config file."""
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error


def parse(text: str, name: str = "config", environ: Mapping[str, str] = os.environ) -> Config:
    """The config in a YAML text; `name` stands in the messages."""
    raw = filled(text, name, environ)
    if "gate" in raw and not raw["gate"]:
        raise ConfigError(f"{name}: gate: nothing configured; name gate.mode at least, or leave the section out")
    try:
        config = _convert(raw, name)
        problems = contradictions(config)
        for challenger, variant in variants(config).items():
            problems += [f"challengers.{challenger}: {found}" for found in _challenged(config, variant, problems)]
    except ConfigError as error:
        raise ConfigError(silenced(str(error), raw)) from None
    if problems:
        raise ConfigError(silenced("\n".join(f"{name}: {problem}" for problem in problems), raw))
    return _keeping_secrets(config, raw)


def _keeping_secrets(config: Config, raw: dict[str, Any]) -> Config:
    """The config with the client options that came from the environment as Secrets, revealed to the client alone."""
    kafka = config.source.kafka
    options = _secret_again(kafka.options, _at(raw, "source.kafka.options"))
    source = msgspec.structs.replace(config.source, kafka=msgspec.structs.replace(kafka, options=options))
    options = _secret_again(config.checkpoints.options, _at(raw, "checkpoints.options"))
    checkpoints = msgspec.structs.replace(config.checkpoints, options=options)
    return msgspec.structs.replace(config, source=source, checkpoints=checkpoints)


def _secret_again(value: Any, given: Any) -> Any:
    """A converted value, with what was given as a Secret as one again, however deep."""
    if isinstance(given, Secret):
        return given
    if isinstance(value, dict) and isinstance(given, dict):
        return {key: _secret_again(item, given.get(key)) for key, item in value.items()}
    if isinstance(value, list) and isinstance(given, list):
        return [_secret_again(*pair) for pair in zip(value, given, strict=True)]
    return value


def filled(text: str, name: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """The YAML as nested builtins; what came from the environment is a `Secret`."""
    try:
        raw = _loaded(text)
        if raw is None:
            raw = {}
        if not isinstance(raw, dict):
            raise ConfigError(f"{name}: the top level is {type(raw).__name__}, expected a mapping of sections")
        return {str(key): _filled(value, str(key), name, environ) for key, value in raw.items()}
    except (yaml.YAMLError, ValueError, LookupError, OverflowError) as error:  # PyYAML's numbers leak the last three
        raise ConfigError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise ConfigError(f"{name}: nested too deep, or an alias that holds itself") from None


def _loaded(text: str) -> Any:
    loader = _UniqueKeys(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _values(node, {}) > _MAX_VALUES:  # before an alias of aliases is written out, and fills the memory
            raise yaml.YAMLError(f"more than {_MAX_VALUES} values, aliases written out")
        return loader.construct_document(node)
    finally:
        loader.dispose()


def _values(node: yaml.Node, known: dict[yaml.Node, int]) -> int:
    """Keys and values that a node stands for. One that holds itself is a RecursionError."""
    if node not in known:
        if isinstance(node.value, str):
            node.value.encode()  # half a surrogate pair ("\ud800") is a ValueError here, not somewhere later
        pairs = node.value if isinstance(node, yaml.CollectionNode) else []
        inner = (part for pair in pairs for part in (pair if isinstance(pair, tuple) else (pair,)))
        known[node] = 1 + sum(_values(part, known) for part in inner)
    return known[node]


class _UniqueKeys(yaml.SafeLoader):
    """SafeLoader that refuses a key written twice (PyYAML silently takes the last), and keeps keys and times as the
    text they were written as (YAML 1.1 makes a boolean of `off`)."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        if not isinstance(node, yaml.MappingNode):
            raise yaml.YAMLError(f"no mapping, line {node.start_mark.line + 1}")
        seen = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.YAMLError(f"a key that is no text, line {key_node.start_mark.line + 1}")
            if key_node.value in seen:
                raise yaml.YAMLError(f"key {key_node.value!r} is given twice, line {key_node.start_mark.line + 1}")
            seen.add(key_node.value)
            if key_node.tag != "tag:yaml.org,2002:merge":
                key_node.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep)


def _as_text(loader: yaml.SafeLoader, node: yaml.Node) -> str:
    return str(node.value)


_UniqueKeys.add_constructor("tag:yaml.org,2002:timestamp", _as_text)


def _filled(value: Any, path: str, name: str, environ: Mapping[str, str]) -> Any:
    """`value` with each ${ENV_VAR} replaced. What came from the environment is a Secret: it is never echoed."""
    if isinstance(value, dict):
        return {str(key): _filled(item, f"{path}.{key}", name, environ) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, f"{path}[{i}]", name, environ) for i, item in enumerate(value)]
    if isinstance(value, int) and value.bit_length() > _MAX_BITS:
        raise ConfigError(f"{name}: {path.lstrip('.')}: a number of {value.bit_length()} bits")
    if not isinstance(value, str) or not _VARIABLE.search(value):
        return value
    for variable in _VARIABLE.findall(value):
        if variable not in environ:
            raise ConfigError(f"{name}: {path.lstrip('.')}: environment variable {variable} is not set")
    return Secret(_VARIABLE.sub(lambda m: environ[m[1]], value))


def _decode(kind: type, value: Any) -> Any:
    if kind is Duration:
        return value if isinstance(value, Duration) else Duration.parse(value)
    if kind is Secret:
        if not isinstance(value, str):
            raise ValueError("Expected a string, best as ${ENV_VAR}")
        return value if isinstance(value, Secret) else Secret(value)
    raise NotImplementedError(kind)


def _convert(raw: Any, name: str) -> Config:
    try:
        return msgspec.convert(revealed(raw), Config, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise ConfigError(_explain(str(error), raw, name)) from None


def _explain(message: str, raw: Any, name: str) -> str:
    """msgspec's message with the real path and the offending value in front."""
    match = _PATH.search(message)
    rule = message[: match.start()] if match else message
    path = _named(match[1].lstrip(".") if match else "", raw, message)
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", rule)
    if unknown:
        allowed = ", ".join(_allowed_keys(path))
        place = f"{path}.{unknown[1]}" if path else unknown[1]
        return f"{name}: {place}: unknown key; allowed here: {allowed}"
    value = _at(raw, path)
    shown = "(from the environment, not shown)" if isinstance(value, Secret) else _short(value)
    return f"{name}: {path or 'top level'}: {shown} is not allowed: {rule[0].lower()}{rule[1:]}"


def _named(path: str, raw: Any, message: str) -> str:
    """msgspec writes a mapping's key as [...]: find the key whose entry alone gives the same complaint."""
    while "[...]" in path:
        before, after = path.split("[...]", 1)
        mapping = _at(raw, before)
        for key in list(mapping):
            try:
                msgspec.convert(revealed(_with(raw, before, {key: mapping[key]})), Config, dec_hook=_decode)
            except msgspec.ValidationError as error:
                if str(error) == message:
                    path = f"{before}.{key}{after}"
                    break
        else:
            return path
    return path


def _steps(path: str) -> Iterator[str | int]:
    for part in re.findall(r"[^.\[\]]+|\[\d+\]", path):
        yield int(part[1:-1]) if part.startswith("[") else part


def _at(raw: Any, path: str) -> Any:
    for step in _steps(path):
        try:
            raw = raw[step]
        except (KeyError, IndexError, TypeError):
            return None
    return raw


def _with(raw: Any, path: str, value: Any) -> Any:
    steps = list(_steps(path))
    if not steps:
        return value
    return {**raw, steps[0]: _with(raw[steps[0]], ".".join(str(s) for s in steps[1:]), value)}


def _allowed_keys(path: str) -> list[str]:
    kind: Any = Config
    for step in _steps(path):
        kind = _core(kind)
        if isinstance(kind, type) and issubclass(kind, Section):
            kind = next((f.type for f in _fields(kind) if f.encode_name == step), None)
        else:
            kind = next(reversed(getattr(kind, "__args__", ())), None)
    kind = _core(kind)
    return [f.encode_name for f in _fields(kind)] if isinstance(kind, type) and issubclass(kind, Section) else []


def _core(kind: Any) -> Any:
    """The section, list or mapping inside Annotated and `| None`."""
    while hasattr(kind, "__metadata__"):
        kind = kind.__origin__
    options = [option for option in getattr(kind, "__args__", ()) if option is not type(None)]
    return _core(options[0]) if isinstance(kind, UnionType) else kind


def _fields(section: type[Section]) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(section)


def _short(value: Any) -> str:
    text = json.dumps(_hidden(value), default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _hidden(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _hidden(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_hidden(item) for item in value]
    return str(value) if isinstance(value, Secret) else value


def to_plain(config: Section, *, scope: str | None = None) -> dict[str, Any]:
    """Nested builtins, durations as text, secrets as asterisks; with `scope="model"` only the model's keys."""
    return {
        field.encode_name: _dump(getattr(config, field.name), scope)
        for field in _fields(type(config))
        if scope is None or _scope(field) == scope
    }


def _scope(field: msgspec.structs.FieldInfo) -> str:
    for meta in getattr(field.type, "__metadata__", ()):
        if meta.extra:
            return str(meta.extra.get("scope", "model"))
    return "model"


def _dump(value: Any, scope: str | None) -> Any:
    if isinstance(value, Section):
        return to_plain(value, scope=scope)
    if isinstance(value, dict):
        return {key: _dump(item, scope) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_dump(item, scope) for item in value]
    return str(value) if isinstance(value, (Duration, Secret)) else value


def model_hash(config: Config) -> str:
    """SHA-256 of the keys that reach the model. Operational keys (brokers, paths, ports, logging) never matter."""
    key = config.privacy.key.reveal() if config.privacy.key else ""
    plain = {**to_plain(config, scope="model"), "pseudonyms": hashlib.sha256(key.encode()).hexdigest()}
    return hashlib.sha256(json.dumps(plain).encode()).hexdigest()


def model_head(config: Config) -> dict[str, Any]:
    """What a snapshot records of the config it was made under."""
    return {"config_hash": model_hash(config), "config": to_plain(config, scope="model")}


def leaves(value: Any, path: str = "") -> dict[str, Any]:
    """Nested mappings as one, by dotted paths."""
    if not isinstance(value, dict) or not value:
        return {path: value}
    inner = (leaves(item, f"{path}.{key}" if path else str(key)) for key, item in value.items())
    return {key: leaf for leaves in inner for key, leaf in leaves.items()}


def event_schema(config: Config) -> EventSchema:
    """Column names of the event batches: topics, types and features in the order of the config.

    The order is part of the model (and of `model_hash`): it decides how equal times sort and where columns stand.
    """
    topics = config.topics.values()
    kinds = [config.examples.of, config.labels.positive]
    for topic in topics:
        kinds += [*topic.types.values(), *([topic.constant_type] if topic.constant_type else [])]
    categorical = [name for topic in topics for name in topic.categorical]
    numeric = [name for topic in topics for name in topic.numeric]
    return EventSchema(
        topics=tuple(config.topics),
        kinds=tuple(dict.fromkeys(kinds)),
        ids=tuple(dict.fromkeys(["user", "item", "session", *categorical])),
        numbers=tuple(dict.fromkeys(numeric)),
    )


def variants(config: Config) -> dict[str, Config]:
    """By name, what the config is with the keys of each challenger. ConfigError where they are not allowed."""
    found = {}
    for name, challenger in config.challengers.items():
        asked = {"learning": challenger.learning, "replay": challenger.replay}
        plain = {part: _merged(to_plain(getattr(config, part)), keys) for part, keys in asked.items()}
        parts = _convert(plain, f"challengers.{name}")
        found[name] = msgspec.structs.replace(config, learning=parts.learning, replay=parts.replay, challengers={})
    return found


def _merged(plain: Any, over: Any) -> Any:
    if not isinstance(plain, dict) or not isinstance(over, dict):
        return over
    return {**plain, **{key: _merged(plain.get(key), value) for key, value in over.items()}}


def _challenged(config: Config, variant: Config, known: list[str]) -> Iterator[str]:
    """What speaks against a challenger, beside what speaks against the config already."""
    yield from (problem for problem in contradictions(variant) if problem not in known)
    if (variant.learning, variant.replay) == (config.learning, config.replay):
        yield "differs in nothing; name keys of `learning` or `replay`"
    if variant.learning.threads != config.learning.threads:
        yield f"learning.threads: {variant.learning.threads}; threads are the process's, leave it out"


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The config with other plain values of keys, named by dotted paths as `leaves` does."""
    for path, value in values.items():
        config = _with_value(config, path.split("."), value)
    return config


def _with_value(section: Any, steps: list[str], value: Any) -> Any:
    field = next(f for f in _fields(type(section)) if f.encode_name == steps[0])
    if len(steps) == 1:
        new = msgspec.convert(value, field.type, dec_hook=_decode)
    else:
        new = _with_value(getattr(section, field.name), steps[1:], value)
    return msgspec.structs.replace(section, **{field.name: new})


def with_state(config: Config, folder: str | None) -> Config:
    """The config with state and checkpoints in `folder`; as it is for None."""
    if folder is None:
        return config
    if is_url(folder):
        raise ConfigError(f"--state {folder}: a URL, but state needs a POSIX volume; give a folder")
    checkpoints = msgspec.structs.replace(config.checkpoints, root=None, options={})
    return msgspec.structs.replace(config, state=folder, checkpoints=checkpoints)


def with_files(config: Config, path: str) -> Config:
    """The config reading a file or folder from its beginning to its end, whatever its source was; its metrics are on
    any free port, so that a back-test runs beside a worker."""
    files = msgspec.structs.replace(config.source.files, path=path, follow=False)
    source = msgspec.structs.replace(config.source, kind="files", start="earliest", files=files)
    letters = msgspec.structs.replace(config.dead_letters, kind="file")
    observing = msgspec.structs.replace(config.observing, port=0)
    return msgspec.structs.replace(config, source=source, dead_letters=letters, observing=observing)
