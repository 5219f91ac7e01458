"""The follower's side, in a process of its own: latency of requests, and memory, while versions come.

    python -m benchmarks.publishing.follower FOLDER [--rows 100] [--pause 1.0]

FOLDER is a model's, with versions one after the other. Prints one JSON object. Requests are asked one after the other
without a pause by one thread while another moves the champion pointer on; a request is of an update when the two were
under way at the same time. Peak memory is that of the kernel (VmHWM), which is set back before each span.
"""

from __future__ import annotations

import argparse
import gc
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from stream_learner.observing.metric_list import resident_bytes
from stream_learner.publishing import deltas
from stream_learner.publishing.checkpoints import POINTER, Checkpoints
from stream_learner.publishing.storage import LocalStorage
from stream_learner.serving import Follower, follow

_WARM_UP = 300  # requests


class Asking:
    """Requests one after the other, and when each began and ended."""

    def __init__(self, follower: Follower, rows: int) -> None:
        self._follower = follower
        random = np.random.default_rng(7)
        specs = follower._model.signatures["serving_default"].structured_input_signature[1]
        self._columns = {
            name: [f"id-{one}" for one in random.integers(0, 10**6, rows)]
            if spec.dtype.name == "string"
            else random.integers(0, 10**9, rows).astype(spec.dtype.as_numpy_dtype)
            for name, spec in specs.items()
        }
        self.spans: list[tuple[float, float]] = []
        self._stopping = threading.Event()
        self._warm = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="requests")

    def __enter__(self) -> Asking:
        self._thread.start()
        self._warm.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _ask(self) -> None:
        while not self._stopping.is_set():
            began = time.perf_counter()
            self._follower.predict(**self._columns)
            self.spans.append((began, time.perf_counter()))
            if len(self.spans) == _WARM_UP:
                self._warm.set()


def measure(folder: Path, rows: int, pause_s: float) -> dict[str, Any]:
    store = Checkpoints(LocalStorage(folder), folder.name, keep=1000)
    versions = [manifest.version for manifest in store.versions()]
    (folder / POINTER).unlink(missing_ok=True)
    store.point(versions[0])
    updates: list[tuple[float, float]] = []
    with follow(folder, every_s=3600.0) as follower, Asking(follower, rows) as asking:
        gc.collect()
        steady = resident_bytes()
        began = len(asking.spans), time.perf_counter()
        _forget_peak()
        for version in versions[1:]:
            store.point(version)
            time.sleep(pause_s)  # requests without an update, to compare with
            start = time.perf_counter()
            assert follower.refresh()
            updates.append((start, time.perf_counter()))
        time.sleep(pause_s)
        peak = _peak_bytes()
        spans = np.array(asking.spans[began[0] :])
        manifest = store.read(versions[-1])
        whole = _whole(store, follower, folder, versions)
    during = np.zeros(len(spans), bool)
    for start, end in updates:
        during |= (spans[:, 0] < end) & (spans[:, 1] > start)
    took_ms = (spans[:, 1] - spans[:, 0]) * 1000
    sizes = [store.read(version).files[deltas.FILE].size for version in versions[1:]]
    without, within = took_ms[~during], took_ms[during]
    return {
        "rows_per_request": rows,
        "updates": len(updates),
        "update_seconds": float(np.median([end - start for start, end in updates])),
        "requests_without": len(without),
        "requests_during": len(within),
        "p50_ms_without": float(np.percentile(without, 50)),
        "p99_ms_without": float(np.percentile(without, 99)),
        "p50_ms_during": float(np.percentile(within, 50)),
        "p99_ms_during": float(np.percentile(within, 99)),
        "max_ms_during": float(within.max()),
        "p99_during_over_without": float(np.percentile(within, 99) / np.percentile(without, 99)),
        "steady_bytes": steady,
        "peak_over_steady": peak / steady,
        "peak_bytes_above_steady": peak - steady,
        "peak_above_steady_over_version": (peak - steady) / sum(f.size for f in manifest.files.values()),
        "version_bytes": sum(file.size for name, file in manifest.files.items() if name != deltas.FILE),
        "delta_bytes": float(np.median(sizes)),
        **whole,
    }


def _whole(store: Checkpoints, follower: Follower, folder: Path, versions: list[int]) -> dict[str, float]:
    """What it takes when the deltas do not lead to a version: the way back to the first."""
    gc.collect()
    steady = resident_bytes()
    _forget_peak()
    (folder / POINTER).unlink()
    store.point(versions[0])
    start = time.perf_counter()
    assert follower.refresh()
    return {
        "whole_update_seconds": time.perf_counter() - start,
        "whole_update_peak_over_steady": _peak_bytes() / steady,
    }


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024.0 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=100, help="per request")
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two updates")
    args = parser.parse_args()
    print(json.dumps(measure(args.folder, args.rows, args.pause)))


if __name__ == "__main__":
    main()
