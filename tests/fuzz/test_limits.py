"""Small inputs that ask for much: aliases of aliases, numbers of a gigabyte, lines without end, foreign folders."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from random import Random

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_learner.config import parse
from stream_learner.errors import ConfigError, DataError, StateError
from stream_learner.publishing.checkpoints import Checkpoints
from stream_learner.publishing.manifest import manifest_from
from stream_learner.publishing.rendering import render_list, render_show
from stream_learner.publishing.storage import LocalStorage
from stream_learner.publishing.verdict_log import read_verdicts
from stream_learner.snapshots import Snapshots

from .cases import Case, refusable
from .files import read_all
from .folders import mend_snapshot, valid_versions

_LAUGHS = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30))])
_MERGES = "\n".join(
    ["a0: &a0 {k: v}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 30))]
)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (_LAUGHS, "more than 100000 values"),
        (_MERGES, "more than 100000 values"),
        ("slides: &a [*a]", "holds itself"),
        ("a: " + "[" * 5000, "nested too deep"),
        ("slides: {by_count: {size: 1e999999999}}", "slides.by_count.size"),
        ("slides: {slide: " + "9" * 400 + "d}", "317 years"),
        ("features: {aggregates: ['a{99999999999}']}", "not a regular expression"),
        ("features: {aggregates: ['" + "(" * 5000 + "']}", "not a regular expression"),
        ("seed: 0x" + "f" * 5000, "20000 bits"),
        ("seed: " + "9" * 5000, "not valid YAML"),
        ("seed: 0b_", "not valid YAML"),
        ("seed: !!bool x", "not valid YAML"),
        ("seed: !!int ''", "not valid YAML"),
        ("seed: " + "1:" * 400 + "1.5", "not valid YAML"),
        ("seed: !!map [x]", "no mapping, line 1"),
        ('name: "\\ud800"', "not valid YAML"),
    ],
)
def test_a_config_that_asks_for_too_much_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint) as refused:
        parse(text, "shop.yaml")
    assert str(refused.value).startswith("shop.yaml: ")


def test_aliases_within_reason_are_allowed() -> None:
    assert parse("topics: {a: &a {time_format: iso8601}, b: {<<: *a}}").topics["b"].time_format == "iso8601"


@pytest.mark.parametrize("name", ["events.jsonl", "events.jsonl.gz"])
def test_a_line_without_end_does_not_fill_the_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with gzip.open(path, "wb", 1) if name.endswith(".gz") else path.open("wb") as file:
        for _ in range(70):
            file.write(bytes(1 << 20))
    with pytest.raises(DataError, match=r"events.jsonl.* has a line of more than"):
        list(read_all(path, "earliest"))


_INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 9), min_size=1, max_size=4)
_COLUMNS = st.one_of(
    _INTEGERS.map(pa.array),
    st.lists(st.none() | st.text(max_size=5), min_size=1, max_size=4).map(lambda v: pa.array(v, pa.string())),
    st.lists(st.none() | st.binary(max_size=5), min_size=1, max_size=4).map(lambda v: pa.array(v, pa.binary())),
    st.lists(st.none() | st.floats(), min_size=1, max_size=4).map(lambda v: pa.array(v, pa.float64())),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4).map(
        lambda v: pa.array(v, pa.int64()).cast(pa.timestamp("ns"))
    ),
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=4).map(
        lambda v: pa.array(v, pa.int32()).cast(pa.date32())
    ),
    st.lists(st.none() | st.lists(st.floats(), max_size=2), min_size=1, max_size=4).map(
        lambda v: pa.array(v, pa.list_(pa.float32()))
    ),
)
_ARCHIVE = ("topic", "partition", "offset", "timestamp", "value")


@settings(derandomize=True, max_examples=150, deadline=None, database=None)
@given(
    columns=st.dictionaries(st.sampled_from([*_ARCHIVE, "user"]), _COLUMNS, min_size=1)
    | st.fixed_dictionaries(dict.fromkeys(_ARCHIVE, _COLUMNS))
    | st.fixed_dictionaries(
        {
            "topic": st.just(pa.array(["events"])),
            **{name: _INTEGERS.map(pa.array) for name in _ARCHIVE[1:4]},
            "value": _COLUMNS,
        }
    )
)
def test_parquet_of_any_columns_meets_a_fate(
    tmp_path_factory: pytest.TempPathFactory, columns: dict[str, pa.Array]
) -> None:
    rows = min(map(len, columns.values()))
    path = tmp_path_factory.mktemp("any") / "0.parquet"
    pq.write_table(pa.table({name: column[:rows] for name, column in columns.items()}), path)
    with refusable(path, "events/"):
        list(read_all(path, "earliest"))


def _snapshots(folder: Path) -> Snapshots:
    snapshots = Snapshots(folder, keep=2)
    for slide in (1, 2):
        snapshots.write(slide, {"a": slide}, {})
    return snapshots


@pytest.mark.parametrize(
    "foreign", ["slide-", "slide-x", "slide-000000000009", "slide-\udcff", "other", ".hidden", "slide-99 copy"]
)
def test_foreign_names_among_snapshots_hide_none(tmp_path: Path, foreign: str) -> None:
    snapshots = _snapshots(tmp_path)
    (tmp_path / foreign).mkdir()
    (tmp_path / f"{foreign}.txt").write_text("a file")
    found = snapshots.latest()
    assert found is not None and found.state == {"a": 2}


@pytest.mark.parametrize("harm", ["renamed", "manifest is a folder", "array is a folder", "link to nowhere", "empty"])
def test_a_snapshot_that_was_touched_falls_back_to_the_one_before(tmp_path: Path, harm: str) -> None:
    snapshots = _snapshots(tmp_path)
    newest = sorted(tmp_path.glob("slide-*"))[-1]
    name = "arrays.bin" if harm == "array is a folder" else "manifest.json"
    (newest / name).rename(newest / "elsewhere")
    if harm.endswith("folder"):
        (newest / name).mkdir()
    elif harm == "link to nowhere":
        (newest / name).symlink_to("nowhere")
    elif harm == "empty":
        (newest / name).write_bytes(b"")
    found = snapshots.latest()
    assert found is not None and found.state == {"a": 1}
    assert [rejected.path for rejected in snapshots.rejected] == [newest]


def test_a_snapshot_that_asks_for_more_memory_than_it_has_bytes_is_not_whole(tmp_path: Path) -> None:
    snapshots = _snapshots(tmp_path)
    for path in tmp_path.glob("slide-*/manifest.json"):
        manifest = json.loads(path.read_bytes())
        manifest["arrays"] = [
            {"name": "a", "dtype": "'<f8'", "shape": [2**40], "pieces": [["arrays.bin", 0, 2**40, None]]}
        ]
        path.write_bytes(mend_snapshot(Random(0), Case("", json.dumps(manifest).encode())).content)
    with pytest.raises(StateError, match=r"arrays.bin ends within a"):
        snapshots.latest()
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("value", [10**400, -(10**400), 1e300, True, "x", None, [1]])
def test_a_version_with_odd_metrics_is_listed_all_the_same(value: object) -> None:
    manifest = manifest_from(next(case.content for case in valid_versions() if case.place.endswith("manifest.json")))
    odd = msgspec.structs.replace(manifest, metrics={"auc": value}, slide_end_us=2**70)
    assert str(2**70) in render_list([odd], None) and render_show(odd)


def test_a_file_name_that_cannot_be_is_refused_with_its_path(tmp_path: Path) -> None:
    for case in valid_versions():
        (tmp_path / case.place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / case.place).write_bytes(case.content.replace(b"saved_model.pb", b"s" * 300))
    store = Checkpoints(LocalStorage(tmp_path / "checkpoints" / "shop"), "shop", keep=2)
    with pytest.raises(ConfigError, match=r"cannot verify .*sss"):
        store.verify(store.versions()[0].version)


@pytest.mark.parametrize("line", [b"{", b"5", b"\xff", b"[" * 100_000, b'{"a":' * 5000, b""])
def test_a_verdict_log_with_a_foreign_line_is_refused_by_its_number(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "verdicts.jsonl"
    path.write_bytes(b'{"slide":1}\n' + line + b"\n")
    with pytest.raises(StateError, match=r"verdicts.jsonl, line 2: no verdict"):
        read_verdicts(path)
