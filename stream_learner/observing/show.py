"""`stream-learner dashboard`: the dashboard of a state folder, whether or not a worker is at it."""

from __future__ import annotations

import argparse
import threading
from pathlib import Path

from stream_learner.observing.routes import Routes
from stream_learner.observing.server import ObservingServer
from stream_learner.publishing.operating import opened
from stream_learner.settings import Observing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of the command."""
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="a worker's state folder")
    parser.add_argument("--host", default=Observing().host, help="default: %(default)s")
    parser.add_argument("--port", type=int, default=Observing().port, help="0 = any free one (default: %(default)s)")


def main(args: argparse.Namespace) -> int:
    """Serves until interrupted; exit code 0. A folder no worker has run on is a ConfigError."""
    opened(args.state)
    serve(args.state, args.host, args.port)
    return 0


def serve(state: Path, host: str, port: int) -> None:
    """Verdicts and versions of a state folder, read-only, until Ctrl-C."""
    with ObservingServer(Observing(host=host, port=port), Routes(state, None, None, None)) as server:
        print("dashboard: http://{}:{}/dashboard (Ctrl-C ends it)".format(*server.address), flush=True)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()
