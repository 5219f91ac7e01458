"""From a promoted candidate to a version: number, manifest, files, pointer, announcement; and back again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream_learner import config as configs
from stream_learner.errors import StateError
from stream_learner.events import ExampleBatch
from stream_learner.explaining.features import integrated_gradients, permutation_importance
from stream_learner.judging.observed import Observed
from stream_learner.judging.race import OWN
from stream_learner.learning.contenders import Contenders
from stream_learner.learning.features import FeatureSchema
from stream_learner.lease import Lease
from stream_learner.publishing import card_text, deltas
from stream_learner.publishing.card import Card, Moved, card
from stream_learner.publishing.checkpoints import Checkpoints, next_version
from stream_learner.publishing.export import Exporter, served_numbers
from stream_learner.publishing.machine import cpu_features, libraries
from stream_learner.publishing.manifest import LearnedRange, Machine, Manifest
from stream_learner.publishing.opening import open_checkpoints
from stream_learner.publishing.standing import Standing, Told
from stream_learner.settings import Config
from stream_learner.tally import Tally
from stream_learner.windows.aggregates import Aggregates
from stream_learner.windows.columns import AggregateColumn

Tables = dict[str, tuple[NDArray[np.uint64], NDArray[np.float32]]]


class AnyVersion(Protocol):
    """What the writer needs to put a version of some task on disk."""

    @property
    def manifest(self) -> Manifest: ...


class AnyPublisher(Protocol):
    """One task's versions, as the commit protocol and operators see them."""

    checkpoints: Checkpoints
    champion: int | None
    pins: set[int]

    def start(self) -> list[str]:
        """Clears what a killed writer left; returns what was cleared."""

    def settled(self) -> int:
        """Number of the first slide that no version on disk was made of."""

    def require(self, version: int) -> Manifest:
        """A version an operator named. ConfigError when there is none, StateError when it cannot be loaded here."""

    def write(self, version: Any) -> None:
        """Step 5, of a version this publisher made."""

    def announcement(self, number: int) -> dict[str, Any]:
        """What the world is told of a version."""


@dataclass(frozen=True)
class Version:
    """What the writer needs to put a version on disk."""

    manifest: Manifest  # but for its content's checksum and its delta, which the writer finds out
    against: int | None  # the version that `variables` are told against; None = they are whole
    variables: Told
    tables: Tables
    sample: ExampleBatch  # real rows, for the load-and-query check
    logits: NDArray[np.float32]  # what the worker itself says to them
    card: Callable[[Manifest], Card]
    exporter: Exporter


@dataclass(frozen=True)
class Occasion:
    """When and from what a version is made."""

    slide: int
    slide_end: int  # us
    tally: Tally
    metrics: dict[str, Any]
    verdict: dict[str, Any]
    quarantined: list[dict[str, Any]]  # slides found broken since the last version


class Publisher:
    """Keeps what the state knows of versions, and writes them."""

    def __init__(
        self,
        config: Config,
        features: FeatureSchema,
        columns: Sequence[AggregateColumn],
        contenders: Contenders,
        lease: Lease,
    ) -> None:
        self._config = config
        self._features = features
        self._columns = columns
        self._contenders = contenders
        self._hash = configs.model_hash(config)
        self._hashes = {self._hash}  # of this and of all configs the state was carried over from
        self.checkpoints = open_checkpoints(config, token=lease.token, fence=lease.prove)
        self._exporters = {
            name: Exporter(one, features, columns, Path(config.state) / _template(name))
            for name, one in contenders.configs.items()
        }
        self.champion: int | None = None
        self.previous: int | None = None  # the version the champion followed; None after a rollback
        self.versions: list[int] = []  # every number ever given
        self.pins: set[int] = set()
        self._tables: Tables = {}  # of the champion, as they travel
        self._standing = Standing()
        self._standing_of: str | None = None  # whose learner's champion stands there; None = nothing does

    def start(self) -> list[str]:
        """Clears what a killed writer left and makes all graphs ready; returns what was cleared."""
        self._contenders.trace()
        for name, exporter in self._exporters.items():
            exporter.prepare(self._contenders.learners[name])
        return self.checkpoints.recover()

    def settled(self) -> int:
        """Number of the first slide that no version on disk was made of."""
        return max((manifest.slide + 1 for manifest in self.checkpoints.versions()), default=0)

    def score_served(self, examples: ExampleBatch) -> NDArray[np.float32]:
        """What the champion as exported says: travelling aggregates as of its slide, the others missing. [n]"""
        if self.champion is None:
            return np.full(len(examples), np.nan, np.float32)
        numbers = served_numbers(self._config, self._features, self._columns, examples, self._tables)
        return self._contenders.score_champion(examples.with_numbers(numbers))

    # ---- making versions ------------------------------------------------------------------------------------

    def promoted(self, occasion: Occasion, aggregates: Aggregates, sample: ExampleBatch, observed: Observed) -> Version:
        """The new champion as a version."""
        capacity = self._config.export.capacity
        tables = {key: aggregates.table(key, capacity, occasion.slide_end) for key in self._config.export.aggregates}
        return self._version(occasion, tables, sample, observed, rollback_of=None)

    def require(self, version: int) -> Manifest:
        """A version an operator named. ConfigError when there is none, StateError when it cannot be loaded here."""
        manifest = self.checkpoints.require(version)
        if manifest.config_hash not in self._hashes:
            raise StateError(f"version {version} was made under other model keys; use the config it was made with")
        if (manifest.challenger or OWN) not in self._exporters:
            raise StateError(
                f"version {version} is of challenger {manifest.challenger}, which the config does not name"
            )
        return manifest

    def rolled_back(self, occasion: Occasion, to: int, sample: ExampleBatch, observed: Observed) -> Version:
        """An older version's content as a new one; the champion becomes it."""
        challenger = self.require(to).challenger
        with self.checkpoints.files(to) as folder:
            variables, tables = self._exporters[challenger or OWN].load(folder)
        self._contenders.load_champion(challenger, variables)
        return self._version(occasion, tables, sample, observed, rollback_of=to)

    def _version(
        self, occasion: Occasion, tables: Tables, sample: ExampleBatch, observed: Observed, rollback_of: int | None
    ) -> Version:
        serving = self._contenders.serving
        learner, exporter = self._contenders.learners[serving], self._exporters[serving]
        against = self.champion if serving == self._standing_of else None
        variables: Told = learner.version_changes() if against is not None else learner.version_variables()
        self._standing_of = serving
        number = next_version(occasion.slide_end, max(self.versions, default=0))
        whose = self._config.name, number, self.champion, rollback_of
        manifest = manifest_of(self._config, self._hash, occasion, *whose, "", exporter.signature())
        if self._contenders.serving != OWN:
            manifest = msgspec.structs.replace(manifest, challenger=self._contenders.serving)
        self.previous = self.champion if rollback_of is None else None
        self.champion, self._tables = number, tables
        self.versions.append(number)
        told = partial(card, observed=observed, moved=self._moved(observed.matured, occasion.slide))
        logits = self._contenders.score_champion(sample)
        return Version(manifest, against, variables, tables, sample, logits, told, exporter)

    def _moved(self, examples: ExampleBatch | None, slide: int) -> Moved:
        """What moves the scores of the champion on labelled examples."""
        if examples is None:
            return Moved({}, {}, 0.0, 0)
        seed = self._config.seed, slide
        importance = permutation_importance(self._contenders.score_champion, examples, self._features, seed)
        shares, left = integrated_gradients(self._contenders.champion, examples)
        return Moved(importance, shares, left, len(examples))

    # ---- on the writer thread -------------------------------------------------------------------------------

    def write(self, version: Version) -> None:
        """Step 5: files in a temporary folder, loaded and queried there, then given their number."""
        number, exporter, standing = version.manifest.version, version.exporter, self._standing
        told = {**version.variables, **exporter.padded(version.tables)}
        standing.advance(number, told, version.against, exporter.content_sha256)
        beside = standing.beside(self._config.checkpoints.max_delta_share)
        manifest = msgspec.structs.replace(
            version.manifest, content_sha256=standing.content, delta=None if beside is None else beside[0]
        )

        def write(folder: Path) -> None:
            exporter.write(folder, standing.arrays)
            card_text.write(folder, version.card(manifest))
            if beside is not None:
                (folder / deltas.FILE).write_bytes(beside[1])

        self.checkpoints.publish(
            number, write, manifest, lambda folder: exporter.check(folder, version.sample, version.logits)
        )

    def announcement(self, number: int) -> dict[str, Any]:
        """What the world is told of a version; keyed by model and version, at least once."""
        return announcement(self.checkpoints, number)

    # ---- state ----------------------------------------------------------------------------------------------

    def capture(self) -> dict[str, Any]:
        tables = {key: {"keys": keys.copy(), "values": values.copy()} for key, (keys, values) in self._tables.items()}
        return {
            "champion": self.champion,
            "previous": self.previous,
            "versions": list(self.versions),
            "pins": sorted(self.pins),
            "config_hashes": sorted(self._hashes),
            "tables": tables,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.previous = state["previous"]
        self.champion, self.versions, self.pins = state["champion"], list(state["versions"]), set(state["pins"])
        self._hashes = {self._hash, *state["config_hashes"]}
        self._tables = {key: (table["keys"], table["values"]) for key, table in state["tables"].items()}
        self._standing_of = None
        if self.champion is not None:
            self._standing_of = self._contenders.serving
            exporter, variables = self._exporters[self._standing_of], self._contenders.champion.values()
            self._standing.begin(self.champion, {**variables, **exporter.padded(self._tables)})


def _template(name: str) -> str:
    """The folder of a contender's graph in the state folder."""
    return "template" if name == OWN else f"template-{name}"


def announcement(checkpoints: Checkpoints, number: int) -> dict[str, Any]:
    """What the world is told of a version of any task."""
    manifest = checkpoints.read(number)
    return {
        "model": manifest.model,
        "version": number,
        "parent": manifest.parent,
        "rollback_of": manifest.rollback_of,
        "path": checkpoints.location(number),
        "slide_end_us": manifest.slide_end_us,
        "content_sha256": manifest.content_sha256,
        "metrics": manifest.metrics,
    }


def manifest_of(
    config: Config,
    config_hash: str,
    occasion: Occasion,
    model: str,
    version: int,
    parent: int | None,
    rollback_of: int | None,
    content_sha256: str,
    signature: dict[str, Any],
) -> Manifest:
    """What a version of any task says of itself; its files are added when they are written."""
    tally = occasion.tally
    return Manifest(
        model=model,
        version=version,
        parent=parent,
        rollback_of=rollback_of,
        slide=occasion.slide,
        slide_end_us=occasion.slide_end,
        event_time_span=None if tally.first_time is None else (tally.first_time, tally.last_time or 0),
        offsets=learned_ranges(tally),
        gaps=tally.gaps,
        quarantined=occasion.quarantined,
        metrics=occasion.metrics,
        verdict=occasion.verdict,
        config_hash=config_hash,
        seed=config.seed,
        content_sha256=content_sha256,
        signature=signature,
        libraries=libraries(),
        machine=Machine(cpu_features=cpu_features(), threads=config.learning.threads),
    )


def learned_ranges(tally: Tally) -> list[LearnedRange]:
    """The offsets in the slides so far, by partition."""
    ranges = []
    for place, (first, last) in sorted(tally.offsets.items()):
        topic, index = place.rsplit(":", 1)
        ranges.append(LearnedRange(topic=topic, index=int(index), first=first, last=last))
    return ranges
