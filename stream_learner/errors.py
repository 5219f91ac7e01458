"""Every failure has one of three fates; this is the tree.

    StreamLearnerError
    ├── PoisonRecord        a record that can never be learned from -> dead letters, counted, go on
    ├── RetryableError      the far side may answer later -> bounded backoff against a deadline
    └── FatalError          stop, state intact; `exit_code` is documented in the README
        ├── ConfigError         exit 2: the config, a command line or a file named there is wrong
        ├── DataError           exit 3: the log is not what it was (gap, truncation, too many dead letters)
        ├── StateError          exit 4: snapshot, journal or checkpoint torn, foreign or contradictory
        ├── LearningError       exit 5: a non-finite loss, gradient or weight, before it could spread
        └── UnavailableError    exit 6: retries used up (broker, disk, object store)

Foreign exceptions are translated once, at the edge where the foreign library is called.
"""

from __future__ import annotations


class StreamLearnerError(Exception):
    """Root of all errors raised on purpose."""


class PoisonRecord(StreamLearnerError):
    """One record cannot be used. `reason` is one of `stream_learner.ingest.dead_letters.REASONS`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class RetryableError(StreamLearnerError):
    """The far side failed in a way that may pass."""


class FatalError(StreamLearnerError):
    """Stop. The message says what happened, where, and what to do."""

    exit_code = 1


class ConfigError(FatalError):
    exit_code = 2


class DataError(FatalError):
    exit_code = 3


class StateError(FatalError):
    exit_code = 4


class LearningError(FatalError):
    exit_code = 5


class UnavailableError(FatalError):
    exit_code = 6
