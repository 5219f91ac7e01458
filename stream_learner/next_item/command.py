"""`stream-learner recommend`: asks a published version which items come next."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from stream_learner.errors import ConfigError
from stream_learner.observing.logs import importing_quietly


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, type=Path, metavar="PATH", help="a version, or a model's folder")
    parser.add_argument("--recent", default="", metavar="A,B,C", help="what the session saw, oldest first")
    parser.add_argument("--user", default="", metavar="U", help="who it is, where the model has learned users")
    parser.add_argument("--k", type=int, default=20, metavar="N", help="how many items (default: %(default)s)")
    parser.add_argument("--exclude", default="", metavar="D,E", help="items never to recommend")
    parser.add_argument("--boost", default="", metavar="F=2,G=0.5", help="items whose scores are multiplied")
    parser.add_argument("--json", action="store_true", help="for programs")


def main(args: argparse.Namespace) -> int:
    """Prints ids and scores, best first. A path that is no version with a `recommend` signature is a ConfigError."""
    answer = ask(signature(args.model), args)
    if args.json:
        print(json.dumps([{"id": name, "score": score} for name, score in answer]))
    else:
        print("\n".join(f"{score:.6f}  {name}" for name, score in answer) or "nothing to recommend")
    return 0


def ask(recommend: Any, args: argparse.Namespace) -> list[tuple[str, float]]:
    """What a version's signature answers to one session."""
    import tensorflow as tf

    if args.k < 1:
        raise ConfigError(f"--k {args.k}: at least 1")
    boost = [_factor(text) for text in _listed(args.boost)]
    told = recommend(
        recent=_row(_listed(args.recent)[::-1]),
        user=tf.constant([args.user]),
        exclude=_row(_listed(args.exclude)),
        boost=_row([name for name, _ in boost]),
        boost_by=tf.constant([[factor for _, factor in boost]], tf.float32, shape=(1, len(boost))),
        k=tf.constant(args.k),
    )
    pairs = zip(told["ids"].numpy()[0].tolist(), told["scores"].numpy()[0].tolist(), strict=True)
    return [(name.decode(), score) for name, score in pairs if name]


def _row(texts: list[str]) -> Any:
    import tensorflow as tf

    return tf.constant([texts], tf.string, shape=(1, len(texts)))


def _listed(text: str) -> list[str]:
    return [part for part in text.split(",") if part]


def _factor(text: str) -> tuple[str, float]:
    name, _, factor = text.rpartition("=")
    try:
        if not name:
            raise ValueError("no item before =")
        return name, float(factor)
    except ValueError as error:
        raise ConfigError(f"--boost {text}: {error}; write ITEM=FACTOR") from None


def _version(path: Path) -> Path:
    """The version itself, or the one in service of a model's folder."""
    pointer = path / "champion.json"
    if not pointer.is_file():
        return path
    try:
        return path / str(int(json.loads(pointer.read_bytes())["version"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"--model {path}: champion.json is damaged ({error}); name a version in it") from None


def signature(model: Path) -> Any:
    """`recommend` of a version, or of the version in service of a model's folder. ConfigError where there is none."""
    path = _version(model)
    if not (path / "saved_model.pb").is_file():
        raise ConfigError(f"--model {path}: no saved_model.pb there; name a version's folder, or a model's")
    with importing_quietly():
        import tensorflow as tf
    try:
        loaded = tf.saved_model.load(str(path))
        return loaded.signatures["recommend"]
    except KeyError:
        raise ConfigError(f"--model {path}: has no `recommend` signature; it is no model of next_item") from None
    except (OSError, ValueError, tf.errors.OpError) as error:
        raise ConfigError(f"--model {path}: does not load: {error}") from error
