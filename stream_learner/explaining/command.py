"""`stream-learner explain`: which inputs move one score of a published version, and by how much."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stream_learner.durable import BAD_JSON
from stream_learner.errors import ConfigError
from stream_learner.explaining.shapley import Attribution, attribute
from stream_learner.observing.logs import importing_quietly

TIME = "time"
_MISSING = {"string": "", "float32": math.nan}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="a version's folder")
    parser.add_argument(
        "--event", required=True, metavar="JSON", help='raw fields by name: {"user": "u1", "price": 9.9, "time": ...}'
    )
    parser.add_argument("--json", action="store_true", help="for programs")


def main(args: argparse.Namespace) -> int:
    """Prints the explanation; exit code 0. No version there, or a field it does not know: ConfigError (exit 2)."""
    content = explain(args.model, _event(args.event))
    print(json.dumps(content, indent=2) if args.json else render(content))
    return 0


def explain(folder: Path, event: dict[str, Any]) -> dict[str, Any]:
    """{"probability", "base_probability", "logit", "inputs": [{"name", "value", "logit", "error"}, ...]}, the strongest
    first; the inputs' logits add up to the score's logit less the base's, which is that of an event of which only the
    time is known."""
    inputs, score = _opened(folder, event)
    given = {name: value for name, value in event.items() if name != TIME and value is not None}
    players = sorted(given)
    dtypes = {name: inputs[name] for name in inputs if name != TIME}

    def game(known: NDArray[np.bool_]) -> NDArray[np.float64]:
        columns: dict[str, NDArray[Any]] = {}
        for name, dtype in dtypes.items():
            value = _MISSING[dtype] if name not in given else _typed(name, given[name], dtype)
            column = np.full(len(known), value, object if dtype == "string" else np.float32)
            if name in given:
                column[~known[:, players.index(name)]] = _MISSING[dtype]
            columns[name] = column
        columns[TIME] = np.full(len(known), int(event[TIME]), np.int64)
        logits: NDArray[np.float64] = score(columns)
        return logits

    return _content(attribute(game, len(players)), players, given)


def render(content: dict[str, Any]) -> str:
    """A line per input, with a bar."""
    lines = [f"probability {content['probability']:.4f}; {content['base_probability']:.4f} when only the time is known"]
    largest = max((abs(one["logit"]) for one in content["inputs"]), default=0.0) or 1.0
    width = max((len(f"{one['name']} = {one['value']}") for one in content["inputs"]), default=0)
    for one in content["inputs"]:
        bar = "#" * round(24 * abs(one["logit"]) / largest)
        lines.append(f"{one['name']} = {one['value']}".ljust(width) + f"  {one['logit']:+.4f}  {bar}")
    return "\n".join([*lines, "(logits; they add up to the difference between the two)"])


def _content(found: Attribution, players: list[str], given: dict[str, Any]) -> dict[str, Any]:
    rows = zip(players, found.values.tolist(), found.error.tolist(), strict=True)
    inputs = [{"name": name, "value": given[name], "logit": value, "error": error} for name, value, error in rows]
    return {
        "probability": _sigmoid(found.score),
        "base_probability": _sigmoid(found.base),
        "logit": found.score,
        "inputs": sorted(inputs, key=lambda one: (-abs(one["logit"]), one["name"])),
    }


def _opened(folder: Path, event: dict[str, Any]) -> tuple[dict[str, str], Any]:
    """Input name -> dtype of the signature that takes all of the event's fields, and its logit as a function."""
    if not (folder / "saved_model.pb").is_file():
        raise ConfigError(f"--model {folder}: no version there; name a folder such as STATE/checkpoints/NAME/VERSION")
    with importing_quietly():
        import tensorflow as tf

        model = tf.saved_model.load(str(folder))
    plain, full = (model.signatures[name] for name in ("serving_default", "with_aggregates"))
    taken = {name: _dtypes(signature) for name, signature in (("plain", plain), ("full", full))}
    unknown = sorted(set(event) - set(taken["full"]))
    if unknown:
        raise ConfigError(
            f"--event: the version has no input {unknown[0]!r}; inputs: {', '.join(sorted(taken['plain']))}"
        )
    if event.get(TIME) is None:
        raise ConfigError("--event: time is missing; us since the epoch")
    name, signature = ("plain", plain) if set(event) <= set(taken["plain"]) else ("full", full)

    def score(columns: dict[str, NDArray[Any]]) -> NDArray[np.float64]:
        asked = {key: tf.constant(column, taken[name][key]) for key, column in columns.items()}
        logits: NDArray[np.float64] = signature(**asked)["logit"].numpy().astype(np.float64)
        return logits

    return taken[name], score


def _dtypes(signature: Any) -> dict[str, str]:
    return {name: spec.dtype.name for name, spec in signature.structured_input_signature[1].items()}


def _typed(name: str, value: Any, dtype: str) -> Any:
    if dtype == "string":
        return str(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise ConfigError(f"--event: {name} is {value!r}; expected a number")


def _event(text: str) -> dict[str, Any]:
    try:
        event = json.loads(text)
    except BAD_JSON as error:
        raise ConfigError(f"--event: not JSON: {error}") from error
    if not isinstance(event, dict):
        raise ConfigError(f"--event: expected an object of fields, not {text[:40]!r}")
    return event


def _sigmoid(logit: float) -> float:
    return 1.0 / (1.0 + math.exp(-logit))
