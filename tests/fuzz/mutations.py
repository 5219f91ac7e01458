"""Seeded damage to bytes. Equal random state and input give equal bytes, so a number names an input for good."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_VALUE = re.compile(rb'(?<=:)\s*(?:"[^"\n]*"|[^,{}\[\]\n]+)')
_SPAN_BYTES = 24
_LIMIT_BYTES = 400_000

NUMBERS = (
    *(b"0", b"-1", b"-0.0", b"1e999", b"1e-999", b"NaN", b"Infinity", b"-Infinity", b"0x1F", b"0b_", b"._", b"1_0"),
    *(b"%d" % (sign * 2**power + step) for power in (31, 53, 63, 64) for sign in (1, -1) for step in (-1, 0, 1)),
    *(b"0x" + b"f" * 5000, b"1:" * 300 + b"1.5"),
    *(b"9" * digits for digits in (19, 25, 310, 400, 5000)),
    *(b"1e400", b"9.99e307", b"1e18", b"253402300800", b".inf", b".nan", b"-.inf", b"1:60:60"),
)
TOKENS = (
    *(b"null", b"true", b"[]", b"{}", b'""', b"~", b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf"),
    *(b"\\ud800", b"\\u0000", "\u202e".encode(), "\U0001f600".encode(), b"\r\n", b"\n", b"\r", b"\n\n", b'"', b"\\"),
    *(b"[" * 130, b'{"a":' * 130, b"[" * 3000, b"[" * 2000 + b"]" * 2000, b"x" * 1100, b"x" * 300),
    *(b"${FUZZ_SECRET}", b"${ABSENT}", b"&a [*a]", b"<<: *a", b"!!binary x", b"!!python/name:os.system ", b"!!set {a}"),
    *(b"!!int x", b"!!float x", b"!!bool x", b"!!null x", b"!!timestamp x", b"!!omap [a]", b"!!pairs [a]", b"!!map "),
    *(b"9" * 400 + b"d", b"1e999999999", b"1/0", b"a{99999999999}", b"(" * 500, b"(?P<a", b"--- a\n--- b", b"%YAML 9"),
    *(b"../../x", b"/etc", b"a.b", b"user.id", b"*", b",", b"]", b"}", b'"__array__":0', b"PAR1", b"\x1f\x8b\x08"),
)
_LEAVES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**53, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**30, 10**500, 0.5, -0.0),
    *(1e308, float("nan"), float("inf"), "", "a", "x" * 300, "x" * 1100, "\0", "\ud800", "é", "0", "1h"),
    *("9" * 400 + "d", "1e999999999", "a{99999999999}", "../x", "${FUZZ_SECRET}", "2024-02-30", [], {}, [[]]),
    *({"a": {"b": None}}, [0] * 300, "user", "item", "a.b", "a.b.c", "events", "click", "purchase", "user*item"),
    *("0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"),
)


def mutated(rng: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    """`content` after one to four kinds of damage; `others` lend their parts. At most 400,000 bytes."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        content = rng.choice(_WAYS)(rng, content, others)
    return content[:_LIMIT_BYTES]


def _span(rng: Random, content: bytes) -> tuple[int, int]:
    start = rng.randrange(len(content) + 1)
    return start, min(len(content), start + 1 + int(rng.expovariate(1 / _SPAN_BYTES)))


def _bit(rng: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    if not content:
        return b"\x01"
    at = rng.randrange(len(content))
    return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]


def _byte(rng: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(content) + 1)
    return content[:at] + bytes([rng.randrange(256)]) + content[at + 1 :]


def _deleted(rng: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _span(rng, content)
    return content[:start] + content[end:]


def _repeated(rng: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _span(rng, content)
    return content[:end] + content[start:end] * rng.choice((1, 1, 2, 40)) + content[end:]


def _cut(rng: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _zeroed(rng: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    """A block that never reached the disk."""
    start, end = _span(rng, content)
    return content[:start] + bytes(end - start) + content[end:]


def _spliced(rng: Random, content: bytes, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others)
    start, end = _span(rng, other)
    at = rng.randrange(len(content) + 1)
    return rng.choice((content[:at] + other[start:end] + content[at:], content[:at] + other[start:], other))


def _token(rng: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _span(rng, content)
    return content[:start] + rng.choice(TOKENS) + content[rng.choice((start, end)) :]


def _noise(rng: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    start, end = _span(rng, content)
    return content[:start] + rng.randbytes(end - start) + content[end:]


def _other_number(rng: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    return _replaced(rng, content, _NUMBER, rng.choice(NUMBERS))


def _other_value(rng: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    return _replaced(rng, content, _VALUE, rng.choice((*TOKENS, *NUMBERS)))


def _replaced(rng: Random, content: bytes, pattern: re.Pattern[bytes], by: bytes) -> bytes:
    found = list(pattern.finditer(content[:20_000]))
    if not found:
        return content + by
    match = rng.choice(found)
    return content[: match.start()] + by + content[match.end() :]


def _other_tree(rng: Random, content: bytes, _: Sequence[bytes]) -> bytes:
    """Damage that keeps the JSON whole: in one line of it, a value is replaced, a key dropped, added or renamed."""
    lines = content.split(b"\n") if len(content) < 20_000 else [content]
    at = rng.randrange(len(lines))
    try:
        tree = json.loads(lines[at])
    except (ValueError, RecursionError):
        return content
    places = list(_places(tree))
    if not places:
        return content
    _change(rng, *rng.choice(places))
    lines[at] = json.dumps(tree, separators=(",", ":")).encode()
    return b"\n".join(lines)


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, inner in items for place in [(tree, key), *_places(inner)]]


def _change(rng: Random, container: Any, key: Any) -> None:
    way = rng.randrange(8)
    if way == 0:
        del container[key]
    elif way == 1 and isinstance(container, dict):
        container[rng.choice(("", "a", "a.b", "x" * 300, "\0", "__array__", "user", "../x"))] = rng.choice(_LEAVES)
    elif way == 2 and isinstance(container, dict):
        container[f"{key}x"] = container.pop(key)
    else:
        container[key] = rng.choice(_LEAVES)


_WAYS: tuple[Callable[[Random, bytes, Sequence[bytes]], bytes], ...] = (
    *(_bit, _byte, _deleted, _repeated, _cut, _zeroed, _spliced, _token, _noise),
    *(_other_number, _other_number, _other_value, _other_value, _other_tree, _other_tree, _other_tree),
)
