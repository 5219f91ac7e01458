"""From a promoted ranking model to a version: number, manifest, files, pointer, announcement; and back again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from stream_learner import config as configs
from stream_learner.errors import StateError
from stream_learner.lease import Lease
from stream_learner.next_item.card import Listed, card, ranked, turnover
from stream_learner.next_item.catalogue import Catalogue
from stream_learner.next_item.learner import RankingLearner
from stream_learner.next_item.names import ItemNames
from stream_learner.next_item.serving import RankingServing
from stream_learner.next_item.sessions import F32, Asked
from stream_learner.publishing import card_text
from stream_learner.publishing.artefact import Artefact, Variables
from stream_learner.publishing.card import Card
from stream_learner.publishing.checkpoints import next_version
from stream_learner.publishing.manifest import Manifest
from stream_learner.publishing.opening import open_checkpoints
from stream_learner.publishing.publisher import Occasion, announcement, manifest_of
from stream_learner.settings import Config

_TOLERANCE = 1e-5  # of scores, which are shares


@dataclass(frozen=True)
class RankingVersion:
    """What the writer needs to put a version on disk."""

    manifest: Manifest
    arrays: Variables
    sample: Asked  # real sessions [n], for the load-and-query check
    scores: F32  # of the best `judging.k` by the worker itself, [n, k]
    card: Card


class RankingPublisher:
    """Keeps what the state knows of versions, and writes them."""

    def __init__(self, config: Config, learner: RankingLearner, lease: Lease) -> None:
        self._config = config
        self._learner = learner
        self._hash = configs.model_hash(config)
        self._hashes = {self._hash}  # of this and of all configs the state was carried over from
        named = msgspec.structs.replace(config, name=config.next_item.name)
        self.checkpoints = open_checkpoints(named, token=lease.token, fence=lease.prove)
        self._artefact = Artefact(Path(config.state) / "template")
        self.champion: int | None = None
        self.previous: int | None = None  # the version the champion followed; None after a rollback
        self.versions: list[int] = []  # every number ever given
        self.pins: set[int] = set()

    def start(self) -> list[str]:
        """Clears what a killed writer left and makes the export graph ready; returns what was cleared."""
        serving = RankingServing(self._learner.candidate)
        self._artefact.prepare(serving.variables, serving.signatures())
        return self.checkpoints.recover()

    def settled(self) -> int:
        """Number of the first slide that no version on disk was made of."""
        return max((manifest.slide + 1 for manifest in self.checkpoints.versions()), default=0)

    # ---- making versions ------------------------------------------------------------------------------------

    def promoted(
        self, occasion: Occasion, catalogue: Catalogue, names: ItemNames, sample: Asked, before: Listed | None
    ) -> RankingVersion:
        """The learner's new champion as a version. `before`: what the one before could recommend."""
        keys, rows = catalogue.admitted()
        texts = np.full(self._learner.champion.height, b"", object)
        texts[rows] = names.of(keys)
        arrays = {**self._learner.champion.values(), "items/names": texts}
        return self._version(occasion, arrays, sample, before, rollback_of=None)

    def rolled_back(self, occasion: Occasion, to: int, sample: Asked) -> RankingVersion:
        """An older version's content as a new one; the learner's champion becomes it."""
        self.require(to)
        before = self._learner.listed()
        with self.checkpoints.files(to) as folder:
            arrays = self._artefact.load(folder)
        self._learner.load_champion({name: value for name, value in arrays.items() if name != "items/names"})
        return self._version(occasion, arrays, sample, before, rollback_of=to)

    def require(self, version: int) -> Manifest:
        """A version an operator named. ConfigError when there is none, StateError when it cannot be loaded here."""
        manifest = self.checkpoints.require(version)
        if manifest.config_hash not in self._hashes:
            raise StateError(f"version {version} was made under other model keys; use the config it was made with")
        return manifest

    def _version(
        self, occasion: Occasion, arrays: Variables, sample: Asked, before: Listed | None, rollback_of: int | None
    ) -> RankingVersion:
        number = next_version(occasion.slide_end, max(self.versions, default=0))
        content = self._artefact.content_sha256(arrays), self._artefact.signature
        whose = self._config.next_item.name, number, self.champion, rollback_of
        manifest = manifest_of(self._config, self._hash, occasion, *whose, *content)
        self.previous = self.champion if rollback_of is None else None
        self.champion = number
        self.versions.append(number)
        champion = self._learner.champion
        told = turnover(before, Listed.of(champion)), ranked(champion, sample, self._k)
        about = card(manifest, str(self._config.next_item.judging.window), *told)
        return RankingVersion(manifest, arrays, sample, champion.top(sample, self._k)[1], about)

    @property
    def _k(self) -> int:
        return min(self._config.next_item.judging.k, self._learner.champion.height - 1)

    # ---- on the writer thread -------------------------------------------------------------------------------

    def write(self, version: RankingVersion) -> None:
        """Step 5: files in a temporary folder, loaded and queried there, then given their number."""
        self.checkpoints.publish(
            version.manifest.version,
            lambda folder: self._write_files(folder, version),
            version.manifest,
            lambda folder: self._check(folder, version),
        )

    def _write_files(self, folder: Path, version: RankingVersion) -> None:
        self._artefact.write(folder, version.arrays)
        card_text.write(folder, version.card)

    def _check(self, folder: Path, version: RankingVersion) -> None:
        """Loads a version with TensorFlow and asks it: real sessions must get the worker's own scores, and nothing
        known an answer of finite ones. Raises StateError."""
        try:
            loaded = tf.saved_model.load(str(folder))
            recent, user = (tf.constant(ids.view(np.int64)) for ids in (version.sample.recent, version.sample.user))
            asked = {"recent": recent, "user": user, "k": tf.constant(self._k)}
            answer = loaded.signatures["from_fingerprints"](**asked)["scores"].numpy()
            default = loaded.signatures["serving_default"](recent=tf.constant([[""]]))["scores"].numpy()
        except (OSError, ValueError, KeyError, TypeError, tf.errors.OpError) as error:
            raise StateError(f"{folder}: the version does not load or answer: {error}") from error
        worst = _largest_difference(answer, version.scores)
        if not worst <= _TOLERANCE:
            raise StateError(f"{folder}: scores differ from the worker's by up to {worst:.3g}, allowed {_TOLERANCE:g}")
        if not np.isfinite(default).all():
            raise StateError(f"{folder}: serving_default answers {default} for a session with nothing known")

    def announcement(self, number: int) -> dict[str, Any]:
        """What the world is told of a version; keyed by model and version, at least once."""
        return announcement(self.checkpoints, number)

    # ---- state ----------------------------------------------------------------------------------------------

    def capture(self) -> dict[str, Any]:
        return {
            "champion": self.champion,
            "previous": self.previous,
            "versions": list(self.versions),
            "pins": sorted(self.pins),
            "config_hashes": sorted(self._hashes),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.champion, self.previous = state["champion"], state["previous"]
        self.versions, self.pins = list(state["versions"]), set(state["pins"])
        self._hashes = {self._hash, *state["config_hashes"]}


def _largest_difference(one: NDArray[Any], other: NDArray[Any]) -> float:
    """NaN where one has a score that the other has not."""
    if one.shape != other.shape or not np.array_equal(np.isfinite(one), np.isfinite(other)):
        return float("nan")
    both = np.isfinite(one)
    return float(np.max(np.abs(one[both] - other[both]), initial=0.0))
