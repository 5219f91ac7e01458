"""Every key has a meaning and a scope: the hash changes with the model's keys, and with no other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec
import pytest

from stream_learner import config as configs
from stream_learner import config_text
from stream_learner.settings import Config, Duration, Section


def keys(section: Section, path: str = "") -> Iterator[tuple[str, msgspec.structs.FieldInfo]]:
    """Every key with its path; sections in mappings by the first entry."""
    for field in msgspec.structs.fields(type(section)):
        here = f"{path}.{field.name}".lstrip(".")
        value = getattr(section, field.name)
        if isinstance(value, Section):
            yield from keys(value, here)
        elif isinstance(value, dict) and value and isinstance(next(iter(value.values())), Section):
            first = next(iter(value))
            yield from keys(value[first], f"{here}[{first}]")
        else:
            yield here, field


def changed(section: Any, path: str, field: msgspec.structs.FieldInfo) -> Any:
    """The section with another value at the path."""
    step, _, rest = path.partition(".")
    name, _, entry = step.removesuffix("]").partition("[")
    old = getattr(section, name)
    if entry:
        new = {**old, entry: changed(old[entry], rest, field)}
    else:
        new = changed(old, rest, field) if rest else other(field.type, old)
    return msgspec.structs.replace(section, **{name: new})


def other(kind: Any, old: Any) -> Any:
    """Another value of a type."""
    while hasattr(kind, "__metadata__"):
        kind = kind.__origin__
    if isinstance(kind, UnionType) or get_origin(kind) is Union:
        kind = next(option for option in get_args(kind) if option is not type(None))
        return other(kind, old)
    if get_origin(kind) is Literal:
        return next((option for option in get_args(kind) if option != old), "another")
    if get_origin(kind) is list:
        return [*(old or []), other(get_args(kind)[0], None)]
    if get_origin(kind) is dict:
        return {**(old or {}), "another": other(get_args(kind)[1], None)}
    if get_origin(kind) is tuple:
        return (old[0] / 2, old[1])
    if isinstance(kind, type) and issubclass(kind, Section):
        required = {f.name: other(f.type, None) for f in msgspec.structs.fields(kind) if f.required}
        return kind(**required) if old is None else None
    if kind is bool:
        return not old
    if kind is Any:
        return "anything"
    if kind in (int, float, Duration):
        return kind((old or 0) + 1)
    return kind("another" if old is None else f"{old}x")


ALL_KEYS = dict(keys(Config()))


def test_every_key_is_described() -> None:
    lines = config_text.annotated_default().splitlines()
    for path, field in keys(Config()):
        meta = [m for m in field.type.__metadata__ if m.description]
        assert len(meta) == 1, path
        line = next(n for n, line in enumerate(lines) if meta[0].description in line)
        assert lines[line].lstrip().startswith("# ")


def test_the_walk_sees_all_keys() -> None:
    assert len(ALL_KEYS) > 100
    assert {"topics[events].fields.user", "features.ids[user].rows", "slides.by_count", "privacy.key"} <= set(ALL_KEYS)


@pytest.mark.parametrize("path", ALL_KEYS)
def test_model_keys_change_the_hash_and_operational_keys_never_do(path: str) -> None:
    field, before = ALL_KEYS[path], Config()
    after = changed(before, path, field)
    assert after != before
    operational = any((m.extra or {}).get("scope") == "operational" for m in field.type.__metadata__)
    assert (configs.model_hash(after) == configs.model_hash(before)) == operational
    described = f"{path.rsplit('.', 1)[-1]}:"
    assert described in config_text.annotated_default()


def test_secrets_change_the_hash_without_being_in_it() -> None:
    text = "privacy: {pseudonymise: true, key: '${K}'}"
    one, two = (configs.parse(text, environ={"K": letter * 16}) for letter in "ab")
    assert configs.model_hash(one) != configs.model_hash(two)
    assert configs.to_plain(one, scope="model") == configs.to_plain(two, scope="model")


def test_the_hash_is_of_values_not_of_writing() -> None:
    one = configs.parse("seed: 1\nslides: {slide: 5m, max_jump: 1h}")
    two = configs.parse("slides:\n  max_jump: 3600\n  slide: 300s\nseed: 1  # same\n")
    assert configs.model_hash(one) == configs.model_hash(two)
    assert len(configs.model_hash(one)) == len(hashlib.sha256().hexdigest())


def test_the_order_of_topics_is_part_of_the_model() -> None:
    """It decides how equal times sort."""
    one, two = configs.parse("topics: {a: {}, b: {}}"), configs.parse("topics: {b: {}, a: {}}")
    assert configs.event_schema(one).topics == ("a", "b")
    assert configs.model_hash(one) != configs.model_hash(two)
