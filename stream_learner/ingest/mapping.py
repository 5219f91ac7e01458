"""A topic's field mapping as a typed reader of JSON, and the words for what does not fit it.

A path such as `user.id` means the key `id` inside the object `user`; where that is absent or null, the key "user.id"
itself at the top level is taken. Fields that no path names are skipped unread.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from stream_learner.errors import ConfigError, PoisonRecord
from stream_learner.settings import Topic

Value = str | int | float | bool | None
Kinds = frozenset[type]

MAX_DEPTH = 128  # far from the interpreter's recursion limit, so that a verdict never depends on the caller's stack

_ID: Kinds = frozenset({str, int})
_NUMBER: Kinds = frozenset({int, float})
_TIME: dict[str, Kinds] = {"iso8601": frozenset({str}), "integer": frozenset({int})}
_JSON_WORDS = {str: "string", int: "integer", float: "fraction", bool: "boolean", dict: "object", list: "array"}
_STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)


@dataclass(frozen=True)
class Use:
    """One use of one path: the JSON types it takes, and what is said of others."""

    path: str
    kinds: Kinds
    wrong_type: str = "wrong_type"  # reason codes
    out_of_range: str = "non_finite"


def uses_of(topic: Topic) -> list[Use]:
    """Every use a topic's mapping makes of a record, in the order in which they are judged."""
    fields = topic.fields
    ids = [fields.user, fields.item, fields.id, fields.session, *topic.categorical.values()]
    uses = [Use(fields.type, _ID)] if fields.type is not None else []
    uses += [Use(path, _ID) for path in ids if path is not None]
    uses.append(Use(fields.time, _TIME.get(topic.time_format, _NUMBER), out_of_range="bad_time"))
    if fields.label is not None:
        kinds = _NUMBER if topic.label is not None else _NUMBER | {bool}
        uses.append(Use(fields.label, kinds, wrong_type="bad_label"))
    return uses + [Use(path, _NUMBER) for path in topic.numeric.values()]


class RecordReader:
    """Reads one topic's records into typed rows, and rows into columns."""

    def __init__(self, name: str, topic: Topic) -> None:
        """Raises ConfigError where the mapping's paths contradict one another."""
        self._uses = uses_of(topic)
        self._type_path = topic.fields.type
        self._types = frozenset(topic.types)
        self._getters: dict[str, list[attrgetter[Any]]] = {}
        self._row = self._row_type(name)
        self.read = msgspec.json.Decoder(self._row).decode
        """Bytes -> a row, for `column`. Raises msgspec.DecodeError or UnicodeDecodeError; `explain` says why."""

    def column(self, path: str, rows: list[Any]) -> list[Any]:
        """The values at a path, None where absent; of the types that all uses of the path take, ints perhaps as
        floats where numbers are taken."""
        columns = [list(map(get, rows)) for get in self._getters[path]]
        if len(columns) == 1:
            return columns[0]
        return [literal if nested is None else nested for nested, literal in zip(*columns, strict=True)]

    def explain(self, value: bytes) -> Any | None:
        """What is wrong with a record that `read` refused: raises PoisonRecord.

        Returns None where its type is an ignored one, and a row where nothing is wrong after all (a null where an
        object could be, a key given twice).
        """
        record = _parsed(value)
        if self._type_path is not None:
            kind = _at(record, self._type_path)
            if type(kind) in _ID and kind != "" and str(kind) not in self._types:
                return None
        found = {use.path: _judged(record, use) for use in self._uses}
        return msgspec.convert(found, self._row)

    def _row_type(self, name: str) -> type[msgspec.Struct]:
        kinds: dict[str, Kinds] = {}
        for use in self._uses:
            kinds[use.path] = kinds.get(use.path, use.kinds) & use.kinds
        tree: dict[str, Any] = {}
        for path, allowed in kinds.items():
            self._getters[path] = []
            _insert(tree, path.split("."), (path, allowed), f"topics.{name}")
            if "." in path:
                tree[path] = (path, allowed)
        try:
            return self._struct(tree, "")
        except ValueError as error:
            raise ConfigError(f"topics.{name}: a field path cannot be used: {error}") from error

    def _struct(self, tree: dict[str, Any], prefix: str) -> type[msgspec.Struct]:
        """A struct type for an object, every field optional; notes how each path is reached in it."""
        fields: list[tuple[str, Any, Any]] = []
        for number, node in enumerate(tree.values()):
            name = f"v{number}"
            if isinstance(node, dict):
                inner = self._struct(node, f"{prefix}{name}.")
                fields.append((name, inner, inner()))
            else:
                path, kinds = node
                self._getters[path].append(attrgetter(prefix + name))
                fields.append((name, _annotation(kinds), None))
        keys = {f"v{number}": key for number, key in enumerate(tree)}
        return msgspec.defstruct("Row", fields, rename=keys, frozen=True, gc=False)


def _insert(tree: dict[str, Any], steps: list[str], leaf: tuple[str, Kinds], here: str) -> None:
    for step in steps[:-1]:
        tree = tree.setdefault(step, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"{here}: field path {leaf[0]!r} goes through {tree[0]!r}, which is taken as a value")
    if steps[-1] in tree:
        raise ConfigError(f"{here}: field path {leaf[0]!r} is taken as a value, but other paths go through it")
    tree[steps[-1]] = leaf


def _annotation(kinds: Kinds) -> Any:
    annotation: Any = None
    for kind in (str, bool, float) if float in kinds else (str, bool, int):
        if kind in kinds:
            annotation = kind if annotation is None else annotation | kind
    return annotation if annotation is None else annotation | None


def too_deep(value: bytes) -> bool:
    """Whether JSON nests beyond MAX_DEPTH. Two counts settle it for nearly every record."""
    if len(value) <= MAX_DEPTH or value.count(b"[") + value.count(b"{") <= MAX_DEPTH:
        return False
    codes = np.frombuffer(_STRINGS.sub(b"", value), np.uint8)
    opened = (codes == ord("[")) | (codes == ord("{"))
    closed = (codes == ord("]")) | (codes == ord("}"))
    depth = np.cumsum(opened.astype(np.int64) - closed)
    return bool(depth.max(initial=0) > MAX_DEPTH)


_ANY = msgspec.json.Decoder()


def _parsed(value: bytes) -> dict[str, Any]:
    try:
        record = _ANY.decode(value)
    except UnicodeDecodeError as error:
        raise PoisonRecord("not_utf8", f"byte {error.start} of a text") from error
    except msgspec.ValidationError as error:
        raise PoisonRecord("non_finite", "a number is out of range") from error
    except msgspec.DecodeError as error:
        raise _not_json(value, str(error)) from error
    if not isinstance(record, dict):
        raise PoisonRecord("not_object", f"the record is a JSON {_word(record)}")
    return record


def _not_json(value: bytes, complaint: str) -> PoisonRecord:
    """Tells apart what msgspec calls malformed: bytes that are no text, and NaN or Infinity where a number belongs."""
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        return PoisonRecord("not_utf8", f"byte {error.start}")
    constants: list[str] = []
    try:
        json.loads(text, parse_constant=constants.append)
    except ValueError:
        return PoisonRecord("not_json", complaint)
    return (
        PoisonRecord("non_finite", f"{constants[0]} is no JSON") if constants else PoisonRecord("not_json", complaint)
    )


def _at(record: Any, path: str) -> Any:
    """The value at a path; None where it is absent or leads through something that is no object."""
    nested: Any = record
    for step in path.split("."):
        nested = nested.get(step) if isinstance(nested, dict) else None
    return record.get(path) if nested is None else nested


def _judged(record: dict[str, Any], use: Use) -> Value:
    """The value at a use's path, None where absent. Raises PoisonRecord for another type or a number beyond float64."""
    _through_objects(record, use.path)
    value = _at(record, use.path)
    if value is None:
        return None
    if type(value) not in use.kinds:
        expected = " or ".join(sorted(_JSON_WORDS[kind] for kind in use.kinds))
        raise PoisonRecord(use.wrong_type, f"{use.path}: a JSON {_word(value)}, expected {expected}")
    if use.kinds >= _NUMBER:
        try:
            float(value)
        except OverflowError as error:
            raise PoisonRecord(use.out_of_range, f"{use.path}: a number beyond float64") from error
    return value  # type: ignore[no-any-return]


def _through_objects(record: dict[str, Any], path: str) -> None:
    """Raises PoisonRecord where the way to a path leads through something that is neither an object nor null."""
    node: Any = record
    steps = path.split(".")
    for depth, step in enumerate(steps[:-1], start=1):
        node = node.get(step)
        if node is None:
            return
        if not isinstance(node, dict):
            raise PoisonRecord("wrong_type", f"{'.'.join(steps[:depth])}: a JSON {_word(node)}, expected object")


def _word(value: Any) -> str:
    return "null" if value is None else _JSON_WORDS[type(value)]
