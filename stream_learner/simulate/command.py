"""`stream-learner simulate`: a shop with known truth, to files or to Kafka."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from stream_learner.errors import ConfigError
from stream_learner.simulate.outputs import JsonlFiles, KafkaTopic, Output, TruthFile, deliver, paced
from stream_learner.simulate.reveal import revealed
from stream_learner.simulate.shop import Shop, ShopEvents, limited
from stream_learner.simulate.world import DRIFT_SIZES, HOUR_US, Drift, ShopSettings

_DEFAULTS = ShopSettings()
_DEFAULT_EVENTS = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path, metavar="DIR", help="new folder for JSON lines, one file per partition")
    where.add_argument("--kafka", metavar="BOOTSTRAP", help="host:port list of the Kafka to produce to")
    parser.add_argument("--topic", default="events", help="topic for --kafka (default: %(default)s)")
    parser.add_argument("--partitions", type=int, default=4, help="default: %(default)s")
    long = parser.add_mutually_exclusive_group()
    long.add_argument("--events", type=int, help=f"stop after so many (default: {_DEFAULT_EVENTS})")
    long.add_argument("--hours", type=float, help="stop after so much event time")
    parser.add_argument("--users", type=int, default=_DEFAULTS.users, help="default: %(default)s")
    parser.add_argument("--items", type=int, default=_DEFAULTS.items, help="default: %(default)s")
    parser.add_argument(
        "--events-per-hour", type=float, default=_DEFAULTS.events_per_hour, help="of event time (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default: %(default)s)")
    parser.add_argument("--rate", type=float, help="events per second of real time (default: flat out)")
    parser.add_argument(
        "--drift",
        action="append",
        default=[],
        metavar="KIND@HOURS[:SIZE]",
        help="may be repeated; kinds and default sizes: " + ", ".join(f"{k} {s:g}" for k, s in DRIFT_SIZES.items()),
    )
    parser.add_argument(
        "--conversion", type=float, default=_DEFAULTS.conversion, help="share of clicks bought (default: %(default)s)"
    )
    parser.add_argument(
        "--delay",
        type=float,
        default=_DEFAULTS.delay_median_s,
        metavar="SECONDS",
        help="median time from click to purchase (default: %(default)s)",
    )
    parser.add_argument("--cancelled", type=float, default=0.0, help="share of purchases cancelled (default: 0)")
    parser.add_argument(
        "--reveal",
        type=float,
        metavar="HOURS",
        help="write into every click whether it converts within so many hours, for labels.mode: oracle",
    )
    parser.add_argument("--truth", type=Path, metavar="FILE", help="true purchase probability of every click")


def main(args: argparse.Namespace) -> int:
    """Runs the command; exit code 0. Bad arguments are a `ConfigError`."""
    if args.partitions < 1 or (args.rate is not None and args.rate <= 0):
        raise ConfigError("--partitions must be at least 1 and --rate above 0")
    settings = _settings(args)
    counts = deliver(_chunks(args, settings), _outputs(args))
    share = counts["purchases"] / max(counts["clicks"], 1)
    text = "{events} events: {clicks} clicks, {purchases} purchases".format(**counts)
    print(f"{text} ({share:.2%} of the clicks)", file=sys.stderr)
    return 0


def _settings(args: argparse.Namespace) -> ShopSettings:
    try:
        return ShopSettings(
            seed=args.seed,
            users=args.users,
            items=args.items,
            events_per_hour=args.events_per_hour,
            conversion=args.conversion,
            delay_median_s=args.delay,
            cancelled=args.cancelled,
            drift=tuple(Drift.parse(text) for text in args.drift),
        )
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _chunks(args: argparse.Namespace, settings: ShopSettings) -> Iterator[ShopEvents]:
    span_us = round(args.hours * HOUR_US) if args.hours is not None else None
    chunks = Shop(settings).chunks(span_us)
    if span_us is None:
        chunks = limited(chunks, args.events if args.events is not None else _DEFAULT_EVENTS)
    if args.reveal is not None:
        chunks = revealed(chunks, round(args.reveal * HOUR_US), round(settings.disorder_s * 1e6))
    return chunks if args.rate is None else paced(chunks, args.rate)


def _outputs(args: argparse.Namespace) -> list[Output]:
    outputs: list[Output] = []
    if args.out is not None:
        outputs.append(JsonlFiles(args.out, args.partitions, args.seed))
    else:
        outputs.append(KafkaTopic(args.kafka, args.topic, args.partitions, args.seed))
    if args.truth is not None:
        outputs.append(TruthFile(args.truth, args.seed))
    return outputs
