"""The typed sections of a config file, with the unit and meaning of every key.

Loading, checking and hashing stand in `config.py`. Each key is part of the *model* (a change makes a different
model, so a snapshot made under other values is refused) unless marked `operational`.
"""

from stream_learner.settings.base import Duration, Secret, Section
from stream_learner.settings.gate import Canary, Gate, SliceFloor
from stream_learner.settings.judging import NOVELTY, Drift, Judging, JudgingSpan, Quarantine
from stream_learner.settings.learning import (
    Encoding,
    Ensemble,
    Features,
    IdFeature,
    Learning,
    NumericFeature,
    Plasticity,
    Replay,
    WarmRestart,
)
from stream_learner.settings.operating import (
    Announce,
    Checkpoints,
    Export,
    Lease,
    Observing,
    Shutdown,
    Snapshot,
    Storage,
)
from stream_learner.settings.reading import (
    DeadLetters,
    Dedupe,
    Fields,
    FilesSource,
    KafkaSource,
    LabelRule,
    Privacy,
    Source,
    Topic,
)
from stream_learner.settings.whole import Config
from stream_learner.settings.windows import (
    Aggregates,
    AsOf,
    Between,
    CountSlides,
    Distinct,
    Examples,
    LabelMode,
    Labels,
    Neighbours,
    Slides,
    Within,
)

__all__ = [
    "NOVELTY",
    "Aggregates",
    "Announce",
    "AsOf",
    "Between",
    "Canary",
    "Checkpoints",
    "Config",
    "CountSlides",
    "DeadLetters",
    "Dedupe",
    "Distinct",
    "Drift",
    "Duration",
    "Encoding",
    "Ensemble",
    "Examples",
    "Export",
    "Features",
    "Fields",
    "FilesSource",
    "Gate",
    "IdFeature",
    "Judging",
    "JudgingSpan",
    "KafkaSource",
    "LabelMode",
    "LabelRule",
    "Labels",
    "Learning",
    "Lease",
    "Neighbours",
    "NumericFeature",
    "Observing",
    "Plasticity",
    "Privacy",
    "Quarantine",
    "Replay",
    "Secret",
    "Section",
    "Shutdown",
    "SliceFloor",
    "Slides",
    "Snapshot",
    "Source",
    "Storage",
    "Topic",
    "WarmRestart",
    "Within",
]
