"""The typed sections of a config file, with the unit and meaning of every key.

Loading, checking and hashing stand in `config.py`. Each key is part of the *model* (a change makes a different
model, so a snapshot made under other values is refused) unless marked `operational`.
"""

from stream_learner.settings.base import Duration, Secret, Section
from stream_learner.settings.gate import Canary, Gate, SliceFloor
from stream_learner.settings.judging import NOVELTY, Drift, Judging, JudgingSpan, Quarantine
from stream_learner.settings.learning import Encoding, Ensemble, Features, IdFeature, Learning, NumericFeature, Replay
from stream_learner.settings.next_item import (
    Blend,
    Catalogue,
    Neighbours,
    Network,
    NextItem,
    Popularity,
    RankingGate,
    RankingJudging,
    Sessions,
    Task,
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
    Labels,
    Slides,
    Within,
)

__all__ = [
    "NOVELTY",
    "Aggregates",
    "Announce",
    "AsOf",
    "Between",
    "Blend",
    "Canary",
    "Catalogue",
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
    "LabelRule",
    "Labels",
    "Learning",
    "Lease",
    "Neighbours",
    "Network",
    "NextItem",
    "NumericFeature",
    "Observing",
    "Popularity",
    "Privacy",
    "Quarantine",
    "RankingGate",
    "RankingJudging",
    "Replay",
    "Secret",
    "Section",
    "Sessions",
    "Shutdown",
    "SliceFloor",
    "Slides",
    "Snapshot",
    "Source",
    "Storage",
    "Task",
    "Topic",
    "Within",
]
