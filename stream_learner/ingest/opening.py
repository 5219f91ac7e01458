"""From a config to its source."""

from __future__ import annotations

from stream_learner.ingest.source import Source
from stream_learner.settings import Config


def open_source(config: Config) -> Source:
    """The source that `config.source.kind` names; nothing is connected or read before its `start`."""
    topics = tuple(config.topics)
    if config.source.kind == "kafka":
        from stream_learner.ingest.kafka import KafkaSource  # not needed, and not installed everywhere, for files

        return KafkaSource(config.source, topics)
    from stream_learner.ingest.files import FilesSource

    return FilesSource(config.source, topics)
