"""What items are called: the text behind a fingerprint, which a recommendation has to give back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

U64 = NDArray[np.uint64]


class ItemNames:
    """Fingerprint -> text, taken down while records are decoded. What it holds follows the records alone."""

    def __init__(self) -> None:
        self._held: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._held)

    def note(self, fingerprints: U64, texts: Sequence[str]) -> None:
        """The items of some records, in any order and number."""
        self._held.update(zip(fingerprints.tolist(), texts, strict=True))

    def of(self, fingerprints: U64) -> list[bytes]:
        """The texts of items, UTF-8. Each must have been noted."""
        return [self._held[key].encode() for key in fingerprints.tolist()]

    def keep(self, *wanted: U64) -> None:
        """Forgets all but these."""
        kept = set().union(*(part.tolist() for part in wanted))
        self._held = {key: text for key, text in self._held.items() if key in kept}

    def capture(self) -> dict[str, Any]:
        keys = np.array(sorted(self._held), np.uint64)
        texts = self.of(keys)
        sizes = np.array([len(text) for text in texts], np.int64)
        return {"keys": keys, "sizes": sizes, "texts": np.frombuffer(b"".join(texts), np.uint8).copy()}

    def restore(self, state: dict[str, Any]) -> None:
        ends = np.cumsum(state["sizes"]).tolist()
        whole = state["texts"].tobytes()
        starts = [0, *ends[:-1]]
        texts = [whole[start:end].decode() for start, end in zip(starts, ends, strict=True)]
        self._held = dict(zip(state["keys"].tolist(), texts, strict=True))
