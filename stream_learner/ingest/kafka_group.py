"""The consumer group under which offsets are committed, for lag tools only; and a look at who else uses it.

The worker is no member of the group: it commits as one who has assigned partitions to itself. Whoever is a member, or
moves a committed offset, is somebody else: their offsets make lag tools lie, and while they are members the broker
refuses ours. No model is touched by it, so it is reported and nothing more.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Mapping
from typing import Any

import kafka
from kafka.structs import OffsetAndMetadata

from stream_learner.errors import FatalError
from stream_learner.ingest.kafka_client import FOREIGN, Connector, native, ours
from stream_learner.ingest.source import Partition

log = logging.getLogger(__name__)

_COMMIT_MS = 1500
_ANSWER_MS = 2500
_NAMED = 5  # members named in a message


class Group:
    """Used by one thread, but for its counts. A failure is counted or left to the next look, never raised."""

    def __init__(self, connector: Connector, group_id: str, look_every_s: float) -> None:
        self.commit_failures = 0  # commits that did not reach the broker
        self.foreign_members = 0  # members at the last look: all of them are somebody else
        self.foreign_commits = 0  # partitions found at another offset than the one committed last
        self._connector = connector
        self._group_id = group_id
        self._look_every_s = look_every_s
        self._look_at = 0.0
        self._committer: Any = None
        self._admin: Any = None
        self._committed: dict[Partition, int] = {}

    def commit(self, positions: Mapping[Partition, int]) -> None:
        """Looks first, when it is time, so that what is found was not written by this commit."""
        self.look()
        offsets = {native(p): OffsetAndMetadata(offset, "", -1) for p, offset in positions.items()}
        try:
            if self._committer is None:
                # A client of its own: a consumer with a group waits for the group's coordinator before it fetches.
                self._committer = self._connector.open(
                    kafka.KafkaConsumer,
                    group_id=self._group_id,
                    enable_auto_commit=False,
                    bootstrap_timeout_ms=_COMMIT_MS,
                )
            self._committer.commit(offsets, timeout_ms=_COMMIT_MS)
            self._committed |= positions
        except (FatalError, *FOREIGN) as error:
            self.commit_failures += 1
            log.warning("offsets not committed (failure %d): %s", self.commit_failures, error)

    def close(self) -> None:
        for client in (self._committer, self._admin):
            if client is not None:
                with contextlib.suppress(*FOREIGN):
                    client.close(**({"autocommit": False, "timeout_ms": 500} if client is self._committer else {}))
        self._committer = self._admin = None

    def look(self) -> None:
        """Every so often, once there has been a commit. Takes as long as the broker takes to answer."""
        if self._committer is None or time.monotonic() < self._look_at:
            return
        self._look_at = time.monotonic() + self._look_every_s
        try:
            if self._admin is None:
                self._admin = self._connector.open(kafka.KafkaAdminClient, request_timeout_ms=_ANSWER_MS)
            described = self._admin.describe_groups([self._group_id])[self._group_id]
            (found,) = self._admin.list_group_offsets({self._group_id: None}).values()
        except (FatalError, *FOREIGN) as error:
            log.debug("consumer group %s not looked at: %s", self._group_id, error)
            return
        self._report_members(described["members"])
        self._report_offsets({p: held.offset for p, held in ours(found).items()})

    def _report_members(self, members: list[dict[str, Any]]) -> None:
        if len(members) > self.foreign_members:
            named = sorted(f"{member['client_id']} at {member['client_host']}" for member in members)[:_NAMED]
            log.warning(
                "consumer group %s has %d member(s) that are not this worker (%s): while they are there, offsets "
                "are not committed and lag tools show theirs. The model is not touched. Give one of them another group "
                "id (source.kafka.group_id)",
                self._group_id,
                len(members),
                ", ".join(named),
            )
        self.foreign_members = len(members)

    def _report_offsets(self, found: Mapping[Partition, int]) -> None:
        for partition, ours_was in sorted(self._committed.items()):
            offset = found.get(partition, ours_was)
            if offset != ours_was:
                self.foreign_commits += 1
                self._committed[partition] = offset
                log.warning(
                    "somebody else committed offset %d of %s under consumer group %s (this worker: %d): lag tools may "
                    "lie, the model is not touched. Give one of them another group id (source.kafka.group_id)",
                    offset,
                    partition,
                    self._group_id,
                    ours_was,
                )
