"""Records from files: archives replayed, histories back-tested, or JSON lines followed as they grow; no broker.

One reader per partition, opened where it is to begin, holding one block of rows. An archived file with several
partitions is therefore read once per partition: more reading, but memory stays bounded however the partitions lie in
it (the archive command writes a file per partition, where this costs nothing).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stream_learner.errors import ConfigError, DataError
from stream_learner.ingest.file_layout import FileLog, files_in, find_logs
from stream_learner.ingest.file_rows import Extent, Rows, archived_rows, own_rows, scan_archived
from stream_learner.ingest.positions import EARLIEST, LATEST, check_position, check_present, parse_start
from stream_learner.ingest.source import Partition, RecordBatch
from stream_learner.settings import Source as SourceSettings

_BATCH_ROWS = 8192
_LINE_BYTES = 200  # a first guess for lag, until a line has been read
_NEVER = 2**62


@dataclass(slots=True)
class _Reader:
    """One partition, read from `position` on."""

    log: FileLog
    position: int  # next_offset of what was handed over
    follow: bool
    limits: dict[Path, int] | None  # bytes of each file when the ends were fixed; None = not fixed
    batch_rows: int = _BATCH_ROWS
    taken: int = 0
    exhausted: bool = False  # nothing more will ever come
    quiet_since: float | None = None  # monotonic s of the first look that found nothing
    waiting: Rows | None = None  # read, not handed over: a block at the most
    _reached: int = 0  # next_offset of the last block, records or not
    _left_bytes: int = 0
    _rows: Iterator[Rows | None] = field(init=False)

    def __post_init__(self) -> None:
        self._reached = self.log.begin
        self._left_bytes = sum(path.stat().st_size for path in self.log.paths)
        self._rows = self._blocks()

    def look(self) -> bool:
        """Whether a record is waiting, or the position moves; reads on until it knows."""
        while self.waiting is None and not self.exhausted:
            rows = next(self._rows, None)
            if rows is None:
                break
            self._check_order(rows)
            self._reached = rows.next_offset
            if len(rows.offsets):
                self.waiting = rows
        if self.waiting is not None:
            self.quiet_since = None
            return True
        self.quiet_since = self.quiet_since or time.monotonic()
        return False

    def take(self) -> RecordBatch:
        """What `look` found, up to a batch."""
        rows = self.waiting
        assert rows is not None
        n = self.batch_rows
        rest = Rows(rows.offsets[n:], rows.timestamps[n:], rows.values[n:], rows.next_offset)
        self.waiting = rest if len(rest.offsets) else None
        self.position = int(rows.offsets[n - 1]) + 1 if len(rest.offsets) else rows.next_offset
        self.taken += min(n, len(rows.offsets))
        return RecordBatch(self.log.partition, rows.offsets[:n], rows.timestamps[:n], rows.values[:n], self.position)

    def check_reachable(self) -> None:
        """Raises `DataError` if the log ends before `position`: what is to be skipped is skipped here."""
        self.look()
        if self.waiting is None and self.log.end is None:
            check_position(self.log.partition, self.position, self.log.begin, max(self._reached, self.log.begin))

    def end(self) -> int:
        """Offset of the end, where everything is skipped up to now."""
        self.look()
        return self._reached if self.log.end is None else self.log.end

    def lag(self) -> int:
        waiting = 0 if self.waiting is None else len(self.waiting.offsets)
        if self.exhausted:
            return waiting
        if self.log.end is not None:
            return max(0, self.log.end - self.position)
        whole = sum(path.stat().st_size for path in self.log.paths)
        rows = max(1, self._reached - self.log.begin)
        line_bytes = (whole - self._left_bytes) / rows if self._left_bytes < whole else _LINE_BYTES
        return waiting + round(self._left_bytes / max(1.0, line_bytes))

    def _blocks(self) -> Iterator[Rows | None]:
        """All blocks of all files in order; ends for good with `exhausted`."""
        done: list[Path] = []
        base = self.log.begin
        while True:
            path = next((p for p in self._paths() if p not in done), None)
            if path is None and self._may_get_files():
                yield None
                continue
            if path is None:
                break
            done.append(path)
            extent = self._extent(path, done)
            for rows in self._rows_of(path, base, extent):
                self._left_bytes = sum(p.stat().st_size for p in self._paths() if p not in done)
                self._left_bytes += max(0, extent.total - extent.read)
                if rows is not None and not self.log.archived:
                    base = rows.next_offset
                yield rows
        self.exhausted = True
        if self.log.end is not None and self._reached < self.log.end and self.position < self.log.end:
            # Markers and compacted records at the end of the original log: the position passes them too.
            self.waiting = Rows(np.empty(0, np.int64), np.empty(0, np.int64), [], self.log.end)

    def _rows_of(self, path: Path, base: int, extent: Extent) -> Iterator[Rows | None]:
        if self.log.archived:
            return archived_rows(path, self.log.partition, self.position, extent)
        return own_rows(path, base, self.position, extent)

    def _extent(self, path: Path, done: list[Path]) -> Extent:
        if path.name.endswith((".gz", ".parquet")):
            return Extent()
        if self.limits is not None:
            return Extent(limit=self.limits[path], keep_partial=not self.follow)
        return Extent(may_grow=lambda: self.follow and all(p in done for p in self._paths()))

    def _paths(self) -> Sequence[Path]:
        if self.log.folder is not None and self._may_get_files():
            return files_in(self.log.folder)
        return self.log.paths

    def _may_get_files(self) -> bool:
        return self.follow and self.limits is None and self.log.folder is not None

    def _check_order(self, rows: Rows) -> None:
        if len(rows.offsets) and (rows.offsets[0] < self._reached or (np.diff(rows.offsets) <= 0).any()):
            raise DataError(
                f"{self.log.partition}: offsets do not ascend near {rows.offsets[0]} in {self.log.paths[0]}"
            )


class FilesSource:
    """The `Source` protocol over files (layouts in `file_layout`)."""

    def __init__(self, config: SourceSettings, topics: Sequence[str], *, batch_rows: int = _BATCH_ROWS) -> None:
        self._root = Path(config.files.path)
        self._topics = tuple(topics)
        self._begin_at = parse_start(config.start)
        self._follow = config.files.follow
        self._interval_s = config.files.poll_interval.seconds
        self._batch_rows = batch_rows
        self._readers: dict[Partition, _Reader] = {}
        self._logs: dict[Partition, FileLog] = {}
        self._until_end = False
        self._look_at = 0.0

    def start(
        self, positions: Mapping[Partition, int] | None, *, until_end: bool, topic_ids: Mapping[str, str] | None = None
    ) -> dict[Partition, int]:
        self._until_end = until_end
        self._readers.clear()
        self._logs = find_logs(self._root, self._topics)
        if positions is None:
            positions = {partition: self._start_of(log) for partition, log in self._logs.items()}
        check_present(positions, self._logs)
        for partition in sorted(positions):
            self._open(partition, positions[partition])
        self._look_at = time.monotonic() + self._interval_s
        return dict(sorted(positions.items()))

    def topic_ids(self) -> dict[str, str]:
        return {}  # a file has no name but its own

    def poll(self, wanted: Collection[Partition], timeout_s: float) -> RecordBatch | None:
        deadline = time.monotonic() + timeout_s
        while True:
            readers = [self._readers[partition] for partition in wanted if partition in self._readers]
            for reader in sorted(readers, key=lambda r: (r.taken, r.log.partition)):
                if reader.look():
                    return reader.take()
            left_s = deadline - time.monotonic()
            if left_s <= 0 or (self._until_end and all(reader.exhausted for reader in readers)):
                return None
            time.sleep(min(left_s, self._interval_s) if self._follow else left_s)

    def ended(self) -> frozenset[Partition]:
        if not self._until_end:
            return frozenset()
        return frozenset(partition for partition, reader in self._readers.items() if not reader.look())

    def idle_s(self, partition: Partition) -> float:
        reader = self._readers[partition]
        if reader.look() or reader.quiet_since is None:
            return 0.0
        return time.monotonic() - reader.quiet_since

    def lag(self) -> dict[Partition, int]:
        return {partition: reader.lag() for partition, reader in self._readers.items()}

    def waiting(self) -> tuple[int, int]:
        blocks = [block for block in (reader.waiting for reader in self._readers.values()) if block is not None]
        values = [value for block in blocks for value in block.values if value is not None]
        return sum(len(block.offsets) for block in blocks), sum(map(len, values))

    def new_partitions(self) -> dict[Partition, int]:
        if self._follow and not self._until_end and time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + self._interval_s
            self._find_new()
        return {p: log.begin for p, log in sorted(self._logs.items()) if p not in self._readers}

    def add(self, partition: Partition, offset: int) -> None:
        check_present({partition: offset}, self._logs)
        self._open(partition, offset)

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Files have no lag tools."""

    def close(self) -> None:
        self._readers.clear()

    def _open(self, partition: Partition, position: int) -> None:
        log = self._logs[partition]
        check_position(partition, position, log.begin, log.end)
        reader = _Reader(log, position, self._follow, self._limits(log), self._batch_rows)
        if position > log.begin:
            reader.check_reachable()
        self._readers[partition] = reader

    def _limits(self, log: FileLog) -> dict[Path, int] | None:
        """Ends are fixed by size: what is appended later is not part of the log this run reads."""
        if self._follow and not self._until_end:
            return None
        return {path: path.stat().st_size for path in log.paths}

    def _start_of(self, log: FileLog) -> int:
        if self._begin_at == EARLIEST:
            return log.begin
        if self._begin_at == LATEST:
            return _Reader(log, _NEVER, self._follow, self._limits(log)).end()
        moment = int(self._begin_at)
        if not log.archived:
            raise ConfigError(
                f"source.start: {log.paths[0]} has no record timestamps to look `source.start` up in: use earliest"
            )
        for path in log.paths:
            for partition, offsets, timestamps in scan_archived(path):
                late = offsets[timestamps >= moment]
                if partition == log.partition and len(late):
                    return int(late[0])
        return _Reader(log, _NEVER, self._follow, self._limits(log)).end()

    def _find_new(self) -> None:
        """New files become new partitions. Numbers of known ones must stay: positions are kept under them."""
        found = find_logs(self._root, self._topics)
        for partition, log in self._logs.items():
            if partition not in found or found[partition].paths[0] != log.paths[0]:
                raise DataError(
                    f"{partition} was {log.paths[0]} and is no longer: files that come later must sort after the others"
                )
        self._logs |= {partition: log for partition, log in found.items() if partition not in self._logs}
