"""What one answer of `recommend` takes at a million items, on one core, against brute force in numpy.

    python -m benchmarks.recommend [--items 1000000] [--models network,blend] [--out r.json]

A version is written as the worker writes it, loaded as its callers load it, and asked about one session at a time: text
in, text out, rules applied. Beside it, turn by turn in the same run, numpy multiplies the same vectors with that of the
session (which it is given), and takes the best of all. Both must name the same items where vectors alone decide.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
K, LENGTH, WARM_UP = 20, 5, 10
SESSION_EVENTS = 4  # of each session in the index

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000, help="in the catalogue (default: %(default)s)")
    parser.add_argument("--models", default="network,blend", help="of next_item.model (default: %(default)s)")
    parser.add_argument("--asked", type=int, default=400, help="sessions asked about (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="the figures, as JSON")
    args = parser.parse_args()
    on_one_core()
    figures = {}
    for name in args.models.split(","):
        figures[name] = measured(name, args.items, args.asked)
        print(line(name, figures[name]), flush=True)
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2) + "\n")


def on_one_core() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def line(name: str, found: dict[str, Any]) -> str:
    ours, theirs = found["recommend_ms"], found["numpy_ms"]
    told = "  ".join(f"{p} {ours[p]:.1f} ms, numpy {theirs[p]:.1f} ms, ratio {found['ratio'][p]:.2f}" for p in ours)
    return f"{name:10} {told}  {found['version_bytes'] / 1e6:,.0f} MB"


def measured(name: str, items: int, asked: int) -> dict[str, Any]:
    """Milliseconds of both at the median and at the 99th percentile, their ratios, and the version's size."""
    with tempfile.TemporaryDirectory() as scratch:
        vectors, sessions, towards = version(Path(scratch), name, items, asked + WARM_UP)
        size = sum(path.stat().st_size for path in Path(scratch).rglob("*") if path.is_file())
        ours, theirs = recommender(Path(scratch)), brute_force(vectors)
        taken = np.array([turn(ours, theirs, s, t, name) for s, t in zip(sessions, towards, strict=True)])[WARM_UP:]
    both = {"p50": np.percentile(taken, 50, axis=0), "p99": np.percentile(taken, 99, axis=0)}
    return {
        "recommend_ms": {p: float(v[0] * 1e3) for p, v in both.items()},
        "numpy_ms": {p: float(v[1] * 1e3) for p, v in both.items()},
        "ratio": {p: float(v[0] / v[1]) for p, v in both.items()},
        "items": items,
        "version_bytes": size,
    }


def turn(
    ours: Callable[[I64], I64], theirs: Callable[[F32], I64], session: I64, towards: F32, name: str
) -> tuple[float, float]:
    """Seconds of each, for one session."""
    began = time.perf_counter()
    told = ours(session)
    between = time.perf_counter()
    found = theirs(towards)
    ended = time.perf_counter()
    if name == "network" and len(np.intersect1d(told, found)) < K - 1:  # the last of equals may differ
        raise SystemExit(f"recommend names {told.tolist()}, brute force {found.tolist()}")
    return between - began, ended - between


def brute_force(vectors: F32) -> Callable[[F32], I64]:
    def best(towards: F32) -> I64:
        scores = vectors @ towards
        scores[0] = -np.inf
        some = np.argpartition(scores, -K)[-K:]
        return np.asarray(some[np.argsort(-scores[some])], np.int64)

    return best


def recommender(folder: Path) -> Callable[[I64], I64]:
    import tensorflow as tf

    recommend = tf.saved_model.load(str(folder)).signatures["recommend"]
    nobody = tf.constant([""])
    none, factors = tf.constant([], tf.string, shape=(1, 0)), tf.constant([], tf.float32, shape=(1, 0))

    def best(session: I64) -> I64:
        recent = tf.constant([[f"i{row}" for row in session]])
        told = recommend(recent=recent, user=nobody, exclude=none, boost=none, boost_by=factors, k=tf.constant(K))
        return np.array([int(text[1:]) for text in told["ids"].numpy()[0]])

    return best


def version(folder: Path, name: str, items: int, asked: int) -> tuple[F32, I64, F32]:
    """Writes a version of a whole catalogue with random vectors. Returns the items' unit vectors [items + 1, dim], and
    sessions as item numbers [asked, LENGTH], with the vector that the network makes of each [asked, dim]."""
    import tensorflow as tf

    from stream_learner.ingest.identity import fingerprints
    from stream_learner.next_item.index import SessionIndex
    from stream_learner.next_item.model import RankingModel
    from stream_learner.next_item.network import unit
    from stream_learner.next_item.serving import RankingServing
    from stream_learner.publishing.artefact import Artefact
    from stream_learner.settings import NextItem
    from stream_learner.settings.next_item import Catalogue, Sessions

    config = NextItem(model=name, catalogue=Catalogue(capacity=items), sessions=Sessions(capacity=items))  # type: ignore[arg-type]
    model, rng = RankingModel(config, 1), np.random.default_rng(1)
    rows = np.arange(1, items + 1)
    names = np.array([b"", *(b"i%d" % row for row in rows)], object)
    known = fingerprints([text.decode() for text in names[1:]])
    share = np.concatenate([[-1.0], 1.0 / rows]).astype(np.float32)
    share[1:] /= share[1:].sum()
    index = None
    if model.index is not None:
        index = SessionIndex.of(
            store_of(config, rng, items),
            popular(rng, items, items),
            (items, items),
            now=0,
            recency=None,
            length_power=config.neighbours.length,
            repeats=False,
        )
    model.take_in((known, rows), share, index)
    serving = RankingServing(model)
    artefact = Artefact(folder / "template")
    artefact.prepare(serving.variables, serving.signatures())
    artefact.write(folder, {**model.values(), "items/names": names})
    sessions = popular(rng, items, asked * LENGTH).reshape(asked, LENGTH)
    if model.network is None:
        raise SystemExit(f"--models {name}: has no vectors to compare with; network or blend")
    recent = np.zeros((asked, config.sessions.recent), np.int32)
    recent[:, -LENGTH:] = sessions[:, ::-1]
    network = model.network
    hidden = network.encoder([network.inputs(tf.gather(network.table, recent)), tf.constant(recent > 0)])
    return network.outputs.numpy(), sessions, unit(hidden[:, -1]).numpy()


def popular(rng: np.random.Generator, items: int, count: int) -> I64:
    """Table rows by Zipf's law, exponent 1."""
    return np.minimum(np.exp(rng.random(count) * np.log(items)), items).astype(np.int64)


def store_of(config: Any, rng: np.random.Generator, events: int) -> Any:
    """Sessions of equal length, as many as there is room for."""
    from stream_learner.events import EventSchema
    from stream_learner.next_item.sessions import SessionStore

    store = SessionStore(config, EventSchema(("t",), ("click",), ("user", "item", "session"), ()))
    store.starts = np.arange(0, events + 1, SESSION_EVENTS, dtype=np.int64)
    store.keys = rng.integers(1, 2**63, len(store.starts) - 1, np.uint64)
    store.users = store.keys
    store.last = np.arange(len(store.keys), dtype=np.int64)
    return store


if __name__ == "__main__":
    for variable in THREADS:  # numpy reads them as it is imported, so the process begins once more
        if os.environ.get(variable) != "1":
            os.environ.update(dict.fromkeys(THREADS, "1"))
            os.execv(sys.executable, [sys.executable, "-m", "benchmarks.recommend", *sys.argv[1:]])
    main()
