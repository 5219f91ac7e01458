"""The protocol broken on purpose: the harness must notice each.

A mutation is laid over the product in every life of a trial, of the uninterrupted reference too; so what is noticed is
what a kill makes of it, not that the product is another one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def commit_offsets_first() -> None:
    """Offsets are committed before the snapshot, and a restart goes by them."""
    from stream_learner.ingest.source import Partition
    from stream_learner.worker import Intake, Worker

    write, start = Worker._write, Intake.start

    def write_after_commit(self: Any, capture: Any) -> None:
        self.around.source.commit(capture.positions)
        places = [[p.topic, p.index, offset] for p, offset in sorted(capture.positions.items())]
        (Path(self.config.state) / "committed.json").write_text(json.dumps(places))
        write(self, capture)

    def start_at_committed(self: Any, *args: Any, **options: Any) -> None:
        committed = Path(self._config.state) / "committed.json"
        if committed.exists() and self.applied > 0:
            places = json.loads(committed.read_text())
            self.positions = {Partition(topic, index): offset for topic, index, offset in places}
        start(self, *args, **options)

    Worker._write, Intake.start = write_after_commit, start_at_committed  # type: ignore[method-assign]


def forget_replay() -> None:
    """The replay buffer is not in the snapshot."""
    from stream_learner.learning.replay import Replay

    Replay.capture = Replay.changes = lambda self: {}  # type: ignore[method-assign]
    Replay.restore = lambda self, state: None  # type: ignore[method-assign]


def forget_slots() -> None:
    """The optimizer's slots are not in the snapshot."""
    from stream_learner.learning.learner import Learner

    restore = Learner.restore

    def restore_without(self: Any, state: dict[str, Any]) -> None:
        fresh = {name: variable.numpy() for name, variable in self._trainer.variables.items()}
        restore(self, state)
        for name, variable in self._trainer.variables.items():
            variable.assign(fresh[name])

    Learner.restore = restore_without  # type: ignore[method-assign]


def publish_before_fsync() -> None:
    """A version gets its number while its files are still in the operating system's cache only."""
    from stream_learner.publishing import checkpoints

    checkpoints.fsync_tree = lambda folder: None


def count_late_by_poll() -> None:
    """Whether an event is late is judged by what its partition had seen when the poll began."""
    from stream_learner.windows.watermark import Watermark

    observe = Watermark.observe

    def observe_by_poll(self: Any, partition: Any, times: Any, timestamped: Any) -> Any:
        before = self._clocks[partition].highest
        _, ahead = observe(self, partition, times, timestamped)
        return ~ahead & self._is_late(times, times * 0 + before, self._clocks[partition].floor), ahead

    Watermark.observe = observe_by_poll  # type: ignore[method-assign]


MUTATIONS: dict[str, Callable[[], None]] = {
    "commit offsets before the snapshot": commit_offsets_first,
    "forget the replay buffer": forget_replay,
    "forget the optimizer slots": forget_slots,
    "publish before fsync": publish_before_fsync,
    "count late events by poll": count_late_by_poll,
}
