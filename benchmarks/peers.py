"""What users would pick instead, as they would set it up, for protocols P1 and P2.

A peer is asked `predict(rows)` and told `learn(rows)`, rows numbering the examples of its data in order; it never sees
a label before it is told to learn it. Settings are common ones, chosen once and not searched on the judged part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.conversion import ClickDays

I64 = NDArray[np.int64]
Scores = NDArray[np.float64]


class Peer(Protocol):
    def learn(self, rows: I64) -> None:
        """Learns these examples, in order."""

    def predict(self, rows: I64) -> Scores:
        """Probabilities."""


class Rate:
    """Smoothed share of positives among the examples of the same id."""

    def __init__(self, ids: I64, label: NDArray[np.float32], strength: float = 20.0) -> None:
        self._ids, self._label, self._strength = ids, label, strength
        self._sums = np.zeros((int(ids.max()) + 1, 2))
        self._all = np.array([1.0, 2.0])

    def learn(self, rows: I64) -> None:
        ids = self._ids[rows]
        np.add.at(self._sums, ids, np.stack([self._label[rows], np.ones(len(rows))], axis=1))
        self._all += [self._label[rows].sum(), len(rows)]

    def predict(self, rows: I64) -> Scores:
        sums, base = self._sums[self._ids[rows]], self._all[0] / self._all[1]
        rates: Scores = (sums[:, 0] + self._strength * base) / (sums[:, 1] + self._strength)
        return rates


class Bias:
    """Mean plus user bias plus item bias, each shrunk with a prior of 5 examples."""

    def __init__(self, users: I64, items: I64, label: NDArray[np.float32]) -> None:
        self._users, self._items, self._label = users, items, label
        self._user, self._item = np.zeros((int(users.max()) + 1, 2)), np.zeros((int(items.max()) + 1, 2))
        self._all = np.array([0.5, 1.0])

    def learn(self, rows: I64) -> None:
        for row in rows:
            user, item, label = self._user[self._users[row]], self._item[self._items[row]], self._label[row]
            mean = self._all[0] / self._all[1]
            of_item = item[0] / (item[1] + 5)
            item += [label - mean - user[0] / (user[1] + 5), 1]
            user += [label - mean - of_item, 1]
            self._all += [label, 1]

    def predict(self, rows: I64) -> Scores:
        user, item = self._user[self._users[rows]], self._item[self._items[rows]]
        scores: Scores = self._all[0] / self._all[1] + user[:, 0] / (user[:, 1] + 5) + item[:, 0] / (item[:, 1] + 5)
        return np.clip(scores, 1e-4, 1 - 1e-4)


class VowpalWabbit:
    """One line per example, adaptive normalised online gradient, logistic loss."""

    def __init__(self, lines: list[str], label: NDArray[np.float32], options: str = "") -> None:
        from vowpalwabbit import Workspace

        self._lines, self._label = lines, label
        self._model = Workspace(f"--loss_function logistic --link logistic -b 18 --quiet {options}")

    def learn(self, rows: I64) -> None:
        for row in rows:
            self._model.learn(f"{1 if self._label[row] else -1} {self._lines[row]}")

    def predict(self, rows: I64) -> Scores:
        return np.array([self._model.predict(self._lines[row]) for row in rows], np.float64)


class River:
    """River's logistic regression; ids as one-hot features."""

    def __init__(self, features: Callable[[int], dict[str, float]], label: NDArray[np.float32], optimizer: Any) -> None:
        from river.linear_model import LogisticRegression

        self._features, self._label = features, label
        self._model = LogisticRegression(optimizer, intercept_lr=0.01)

    def learn(self, rows: I64) -> None:
        for row in rows.tolist():
            self._model.learn_one(self._features(row), bool(self._label[row]))

    def predict(self, rows: I64) -> Scores:
        return np.array([self._model.predict_proba_one(self._features(row)).get(True, 0.5) for row in rows.tolist()])


class LightGbm:
    """Gradient boosting: fitted once on all that is mature when it is first asked, or anew every day."""

    def __init__(self, x: NDArray[np.float32], label: NDArray[np.float32], *, daily: bool) -> None:
        self._x, self._label, self._daily = x, label, daily
        self._rows = np.empty(0, np.int64)
        self._model: Any = None
        self._stale = True

    def learn(self, rows: I64) -> None:
        self._rows = np.concatenate([self._rows, rows])
        self._stale = self._stale or (self._daily and len(rows) > 0)

    def predict(self, rows: I64) -> Scores:
        from lightgbm import LGBMClassifier

        if self._stale:
            self._model = LGBMClassifier(
                n_estimators=130,
                learning_rate=0.03,
                num_leaves=8,
                min_child_samples=80,
                colsample_bytree=0.3,
                subsample=0.7,
                subsample_freq=1,
                reg_lambda=20,
                random_state=1,
                verbose=-1,
                n_jobs=2,
            )
            self._model.fit(self._x[self._rows], self._label[self._rows])
            self._stale = False
        return np.asarray(self._model.predict_proba(self._x[rows]), np.float64)[:, 1]


class Sgd:
    """scikit-learn's SGDClassifier, one `partial_fit` a day."""

    def __init__(self, x: NDArray[np.float32], label: NDArray[np.float32]) -> None:
        from sklearn.linear_model import SGDClassifier

        self._x, self._label = x, label
        self._model = SGDClassifier(loss="log_loss", alpha=0.01, random_state=1)

    def learn(self, rows: I64) -> None:
        if len(rows):
            self._model.partial_fit(self._x[rows], self._label[rows], classes=[0.0, 1.0])

    def predict(self, rows: I64) -> Scores:
        return np.asarray(self._model.predict_proba(self._x[rows]), np.float64)[:, 1]


class KerasMlp:
    """A multi-layer perceptron with embedded ids, `train_on_batch` of whatever has come in."""

    def __init__(self, users: I64, items: I64, x: NDArray[np.float32], label: NDArray[np.float32], batch: int) -> None:
        import keras

        keras.utils.set_random_seed(1)
        self._inputs, self._label, self._batch = (users, items, x), label, batch
        ids = [keras.Input((), dtype="int32"), keras.Input((), dtype="int32")]
        heights = (int(users.max()) + 1, int(items.max()) + 1)
        vectors = [keras.layers.Embedding(height, 8)(one) for height, one in zip(heights, ids, strict=True)]
        numbers = keras.Input((x.shape[1],))
        out = keras.layers.Concatenate()([*vectors, numbers])
        for width in (32, 16):
            out = keras.layers.Dense(width, activation="relu")(out)
        self._model = keras.Model([*ids, numbers], keras.layers.Dense(1, activation="sigmoid")(out))
        self._model.compile(keras.optimizers.Adam(1e-3), loss="binary_crossentropy")

    def learn(self, rows: I64) -> None:
        for start in range(0, len(rows), self._batch):
            part = rows[start : start + self._batch]
            self._model.train_on_batch([values[part] for values in self._inputs], self._label[part])

    def predict(self, rows: I64) -> Scores:
        given = [values[rows] for values in self._inputs]
        return np.asarray(self._model(given, training=False), np.float64)[:, 0]


def conversion_peers(days: ClickDays) -> dict[str, Callable[[], Peer]]:
    """The peers of P1, by name."""
    from river.optim import AdaGrad, FTRLProximal

    scaled = days.scaled()

    def numbers(row: int) -> dict[str, float]:
        out: dict[str, float] = dict(enumerate(scaled[row].tolist()))  # type: ignore[arg-type]
        out[f"u{days.user[row]}"] = out[f"i{days.item[row]}"] = 1.0
        return out

    def lines() -> list[str]:
        values = [" ".join(f"{j}:{v:.4g}" for j, v in enumerate(row) if v) for row in scaled.tolist()]
        ids = zip(days.user.tolist(), days.item.tolist(), values, strict=True)
        return [f"|n {text} |u {user} |i {item}" for user, item, text in ids]

    return {
        "prior": lambda: Rate(np.zeros(len(days.day), np.int64), days.label),
        "item_rate": lambda: Rate(days.item, days.label),
        "user_rate": lambda: Rate(days.user, days.label),
        "river_ftrl": lambda: River(numbers, days.label, FTRLProximal(alpha=0.02, l1=0.0, l2=1.0)),
        "river_adagrad": lambda: River(numbers, days.label, AdaGrad(0.02)),
        "vowpal_wabbit": lambda: VowpalWabbit(lines(), days.label),
        "sgd_classifier": lambda: Sgd(scaled, days.label),
        "lightgbm_frozen": lambda: LightGbm(days.x, days.label, daily=False),
        "lightgbm_daily": lambda: LightGbm(days.x, days.label, daily=True),
        "keras_mlp": lambda: KerasMlp(days.user, days.item, scaled, days.label, 128),
    }


def freshness_peers(users: I64, items: I64, label: NDArray[np.float32]) -> dict[str, Callable[[], Peer]]:
    """The peers of P2, by name."""
    from river.optim import AdaGrad

    nothing = np.zeros((len(users), 0), np.float32)
    lines = [f"|u {user} |i {item}" for user, item in zip(users.tolist(), items.tolist(), strict=True)]
    return {
        "item_rate": lambda: Rate(items, label, 5.0),
        "bias": lambda: Bias(users, items, label),
        "river_adagrad": lambda: River(lambda row: {f"u{users[row]}": 1.0, f"i{items[row]}": 1.0}, label, AdaGrad(0.3)),
        "vowpal_wabbit": lambda: VowpalWabbit(lines, label, "-l 0.5"),
        "keras_mlp": lambda: KerasMlp(users, items, nothing, label, 32),
    }
