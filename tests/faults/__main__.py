"""python -m tests.faults --kills N --seed S [--source files|kafka]: N trials, each counted if equal.

On a broker of its own, one more for every ten, uncounted, on a topic that grows.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from tests import broker

from .driver import Driver
from .faults import possible
from .growing import run_growing
from .plans import make_plan
from .stream import Stream
from .table import table
from .trials import Reference, Result, make_reference, missing_announcements, run_plans
from .volume import unwind_when_terminated
from .worlds import World, files_world, kafka_world, make_stream


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Kill the worker anywhere; compare.")
    parser.add_argument("--kills", type=int, default=20, help="trials, each a state of its own (default %(default)s)")
    parser.add_argument("--seed", type=int, default=7, help="decides stream, places and damage (default %(default)s)")
    parser.add_argument("--source", choices=("files", "kafka"), default="kafka")
    parser.add_argument("--jobs", type=int, default=2, help="trials at a time (default %(default)s)")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of trials, to repeat them")
    args = parser.parse_args()
    unwind_when_terminated()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    with ExitStack() as stack:
        driver = stack.enter_context(Driver(folder / "driver"))
        stream = make_stream(args.seed)
        world = _world(args.source, folder, driver, stream, stack)
        begun = time.monotonic()
        reference = make_reference(world)
        _say(f"seed {args.seed}: {len(stream.records)} records through {args.source}, state in {folder}")
        _say(f"reference: {len(reference.outcome.report['versions'])} versions, {len(reference.census)} places")
        results = _results(world, reference, args)
        grown = _grown(world, args)
        _say(table([*results, *grown]))
        missing = missing_announcements(world, reference, results)
        _say(f"{time.monotonic() - begun:.0f} s, {sum(r.killed for r in results)} lives ended by SIGKILL")
    if all(r.verdict.equal for r in [*results, *grown]):
        shutil.rmtree(folder)
    unequal = [f"{r.folder} is unequal" for r in grown if not r.verdict.equal]
    return _conclude([*reference.verdict.differences, *missing, *unequal], reference, results)


def _world(source: str, folder: Path, driver: Driver, stream: Stream, stack: ExitStack) -> World:
    if source == "files":
        return files_world(folder, driver, stream)
    server = broker.open_broker()
    stack.callback(server.remove)
    world = kafka_world(folder, driver, stream, broker.KafkaBroker(server), hurt=True)
    stack.callback(world.close)
    return world


def _results(world: World, reference: Reference, args: argparse.Namespace) -> list[Result]:
    numbers = range(args.kills) if args.only is None else args.only
    plans = [make_plan(args.seed, number, reference.census, possible(world)) for number in numbers]
    return run_plans(world, reference, plans, args.jobs, report)


def _grown(world: World, args: argparse.Namespace) -> list[Result]:
    """Trials on topics of their own, which get more partitions."""
    if world.server is None or args.only is not None:
        return []
    with ThreadPoolExecutor(args.jobs) as pool:
        grown = list(pool.map(lambda number: run_growing(world, args.seed, number), range(args.kills // 10)))
    for result in grown:
        report(result)
    return grown


def report(result: Result) -> None:
    """A line per trial; what is wrong with it, and where it is kept."""
    _say(f"trial {result.plan.seed[1]}: {'; '.join(result.happened)}: {'equal' if result.verdict.equal else 'UNEQUAL'}")
    if not result.verdict.equal:
        _say(f"  seed {result.plan.seed[0]}, kept in {result.folder}")
        for difference in result.verdict.differences:
            _say(f"  {difference}")


def _conclude(problems: list[str], reference: Reference, results: list[Result]) -> int:
    """The last line, and the exit code. `problems` are those of no one trial."""
    for problem in problems:
        _say(f"  {problem}")
    equal = sum(r.verdict.equal for r in results)
    lost = sum(r.verdict.lost for r in results) + reference.verdict.lost
    duplicated = sum(r.verdict.duplicated for r in results) + reference.verdict.duplicated
    _say(f"kills={len(results)} equal={equal} lost={lost} duplicated={duplicated}")
    return 0 if equal == len(results) and reference.verdict.equal and not problems else 1


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
