"""What may not be learned from: to the dead-letter sink, counted, and held against the rate that stops the worker."""

from __future__ import annotations

import numpy as np

from stream_learner.errors import RetryableError
from stream_learner.ingest.dead_letters import DeadLetter, DeadLetterRate, DeadLetterSink, letter_of
from stream_learner.ingest.decode import Decoded
from stream_learner.ingest.source import RecordBatch
from stream_learner.retry import retrying
from stream_learner.settings import Config
from stream_learner.tally import Tally


class Burial:
    """Between decoding and the sink."""

    def __init__(self, config: Config, letters: DeadLetterSink, tally: Tally) -> None:
        self._letters = letters
        self._tally = tally
        self._late_too = config.dead_letters.late == "dead_letter"
        self._retry_timeout = config.storage.retry_timeout
        self._rate = DeadLetterRate(config.dead_letters.max_rate, config.dead_letters.rate_records)

    def bury(self, batch: RecordBatch, decoded: Decoded, late: np.ndarray, ahead: np.ndarray) -> None:
        """`late` and `ahead`: bool (events,), of the decoded events. Raises DataError when too many are dead."""
        letters = list(decoded.dead)
        letters += [letter_of(batch, row, "time_ahead", "event time jumps too far") for row in decoded.rows[ahead]]
        dead = len(letters)
        if self._late_too:
            letters += [letter_of(batch, row, "late", "its slide had closed") for row in decoded.rows[late]]
        if letters:
            self._send(letters)
        self._tally.took(batch, decoded, late=int(late.sum()), letters=letters, dead=dead)
        self._rate.observe(len(batch), letters)

    def _send(self, letters: list[DeadLetter]) -> None:
        """A sink that cannot write now has taken the letters all the same: only the flush is tried again."""
        try:
            self._letters.add(letters)
        except RetryableError:
            retrying(self._letters.flush, "dead letters", self._retry_timeout)
