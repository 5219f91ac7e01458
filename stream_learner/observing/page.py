"""The dashboard's files: as the server gives them out, and all in one with what they show, for `report`."""

from __future__ import annotations

import argparse
import base64
import gzip
import hashlib
import json
import re
from importlib import resources
from pathlib import Path

from stream_learner.durable import write_file
from stream_learner.observing.board import Board
from stream_learner.publishing.operating import opened

MODULES = ("drawing", "drift", "ranking", "story", "versions", "words")  # by the names that the import map gives them
KINDS = {
    "index.html": "text/html; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    **{f"{name}.js": "text/javascript; charset=utf-8" for name in MODULES},
    "style.css": "text/css; charset=utf-8",
    "charts.js.gz": "text/javascript; charset=utf-8",
}
_IMPORTS = re.compile(r'<script type="importmap">(.*?)</script>')


def file(name: str) -> bytes:
    """One of `KINDS`, as it lies in the package."""
    return resources.files(__package__).joinpath("dashboard", name).read_bytes()


def imports_sha256() -> str:
    """Of the one inline script, in base64, for the Content-Security-Policy."""
    found = _IMPORTS.search(file("index.html").decode())
    assert found is not None
    return base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()


def whole(board: Board) -> str:
    """The page as one HTML file that needs no server: style, scripts and all that `board` has to say inside."""
    answers = {
        "/dashboard/now": board.now(),
        "/dashboard/verdicts": {"verdicts": board.verdicts()},
        "/dashboard/versions": board.versions(),
    }
    scripts = {"charts": gzip.decompress(file("charts.js.gz")), **{name: file(f"{name}.js") for name in MODULES}}
    imports = {name: "data:text/javascript;base64," + base64.b64encode(code).decode() for name, code in scripts.items()}
    enclosed = json.dumps(answers).replace("<", "\\u003c")  # no text of an answer may end the script
    parts = {
        _IMPORTS.pattern: f'<script type="importmap">{json.dumps({"imports": imports})}</script>',
        r'<link rel="stylesheet".*?>': f"<style>{file('style.css').decode()}</style>",
        r'<script type="module".*?</script>': f'<script type="application/json" id="enclosed">{enclosed}</script>'
        f'<script type="module">{file("app.js").decode()}</script>',
    }
    page = file("index.html").decode()
    for pattern, part in parts.items():
        page = re.sub(pattern, lambda _, part=part: part, page, count=1, flags=re.DOTALL)  # type: ignore[misc]
    return page


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `stream-learner report`."""
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="a worker's state folder")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the HTML file to write")


def main(args: argparse.Namespace) -> int:
    """Writes the dashboard of a state folder as one file; exit code 0."""
    opened(args.state)
    write_file(args.out, whole(Board(args.state, None, None)).encode())
    print(args.out)
    return 0
