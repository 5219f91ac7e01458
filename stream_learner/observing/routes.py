"""Which path answers what. GET reads; the one POST leaves an operator's command, and asks for the token."""

from __future__ import annotations

import gzip
import hmac
import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from stream_learner.errors import ConfigError, StreamLearnerError
from stream_learner.observing import page
from stream_learner.observing.board import Board, command
from stream_learner.observing.health import Health
from stream_learner.observing.metrics import CONTENT_TYPE, WorkerMetrics
from stream_learner.publishing.commands import Commands
from stream_learner.settings.base import Secret

_log = logging.getLogger(__name__)

MAX_BODY_BYTES = 4096
SHARED_S = 2.0  # how old an answer about now may be; tabs ask every three seconds
_ALLOWED = ("rollback", "pin", "unpin")
_COMPRESSED_FROM_BYTES = 1024
_PAGE = {"/dashboard": "index.html"} | {f"/dashboard/{name.removesuffix('.gz')}": name for name in page.KINDS}
_SAFETY = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


@dataclass(frozen=True)
class Answer:
    """What goes back; `body` as it is, `zipped` when it is gzip already."""

    status: HTTPStatus
    kind: str
    body: bytes
    zipped: bool = False
    headers: dict[str, str] = field(default_factory=dict)

    def for_client(self, accepts_gzip: bool) -> Answer:
        """Compressed where that is worth it and the client takes it, plain where it does not."""
        if self.zipped and not accepts_gzip:
            return Answer(self.status, self.kind, gzip.decompress(self.body), False, self.headers)
        if accepts_gzip and not self.zipped and len(self.body) >= _COMPRESSED_FROM_BYTES:
            return Answer(self.status, self.kind, gzip.compress(self.body, 5, mtime=0), True, self.headers)
        return self


class Routes:
    """`metrics` and `health` are None where only a state folder is shown; `options` as of `Board`."""

    def __init__(
        self,
        state: Path,
        token: Secret | None,
        metrics: WorkerMetrics | None,
        health: Health | None,
        options: dict[str, Any] | None = None,
    ) -> None:
        self.board = Board(state, metrics, health, options)
        self._commands = Commands(state / "commands")
        self._token = token
        self._metrics = metrics
        self._health = health
        self._files: dict[str, bytes] = {}
        self._page_headers = {**_SAFETY, "Content-Security-Policy": _policy(), "Cache-Control": "no-cache"}
        self._lock = threading.Lock()
        self._told: tuple[float, Answer] | None = None  # what was said of now, and when (monotonic seconds)
        self._read: dict[str, Callable[[str], Answer]] = {
            "/dashboard/now": lambda _: self._now(),
            "/dashboard/verdicts": self._verdicts,
            "/dashboard/card": self._card,
            "/dashboard/versions": lambda _: _json(self.board.versions()),
        }

    def get(self, path: str, query: str) -> Answer:
        if path in _PAGE:
            return self._page(path)
        if path in self._read:
            return self._read[path](query)
        if path == "/":
            return _text(HTTPStatus.FOUND, "the dashboard is at /dashboard", Location="/dashboard")
        if self._metrics is not None and path == "/metrics":
            return Answer(HTTPStatus.OK, CONTENT_TYPE, self._metrics.exposition())
        if self._health is not None and path == "/healthz":
            return _verdict(*self._health.live())
        if self._health is not None and path == "/readyz":
            return _verdict(*self._health.ready())
        return _text(HTTPStatus.NOT_FOUND, "/dashboard /metrics /healthz /readyz")

    def post(self, path: str, authorization: str, body: bytes) -> Answer:
        """/dashboard/commands with `{"name": "rollback" | "pin" | "unpin", "version": n, "model": m}` and the token:
        202."""
        if path != "/dashboard/commands":
            return _text(HTTPStatus.NOT_FOUND, "POST goes to /dashboard/commands")
        if self._token is None:
            return _text(
                HTTPStatus.FORBIDDEN, "commands are off: set observing.token, or use stream-learner checkpoints"
            )
        if not hmac.compare_digest(authorization.encode(), b"Bearer " + self._token.reveal().encode()):
            return _text(HTTPStatus.UNAUTHORIZED, "wrong token", **{"WWW-Authenticate": "Bearer"})
        try:
            name, version, model = command(body)
            if name not in _ALLOWED:
                raise ConfigError(f"{name!r} is not one of {', '.join(_ALLOWED)}")
            checkpoints = self.board.checkpoints(model)
            checkpoints.require(version)
            command_id = self._commands.submit(name, version=version, model=checkpoints.model)
        except ConfigError as error:
            return _text(HTTPStatus.BAD_REQUEST, str(error))
        except StreamLearnerError as error:
            return _text(HTTPStatus.SERVICE_UNAVAILABLE, str(error))
        _log.info("%s %d of %s left by the dashboard as %s", name, version, checkpoints.model, command_id)
        return _json({"command": command_id}, HTTPStatus.ACCEPTED)

    def _page(self, path: str) -> Answer:
        name = _PAGE[path]
        if name not in self._files:
            self._files[name] = page.file(name)
        return Answer(HTTPStatus.OK, page.KINDS[name], self._files[name], name.endswith(".gz"), self._page_headers)

    def _now(self) -> Answer:
        """One answer for all tabs that ask within two seconds, so that their number does not cost."""
        with self._lock:
            if self._told is None or time.monotonic() - self._told[0] > SHARED_S:
                self._told = time.monotonic(), _json(self.board.now()).for_client(accepts_gzip=True)
            return self._told[1]

    def _verdicts(self, query: str) -> Answer:
        after = parse_qs(query).get("after", ["-1"])[0]
        try:
            return _json({"verdicts": self.board.verdicts(int(after))})
        except ValueError:
            return _text(HTTPStatus.BAD_REQUEST, f"after: {after!r} is no number")

    def _card(self, query: str) -> Answer:
        asked = parse_qs(query)
        version, model = asked.get("version", [""])[0], asked.get("model", [None])[0]
        try:
            shown = self.board.card(int(version), model)
            return Answer(HTTPStatus.OK, page.KINDS["index.html"], shown, headers=self._page_headers)
        except ValueError:
            return _text(HTTPStatus.BAD_REQUEST, f"version: {version!r} is no number")
        except StreamLearnerError as error:
            return _text(HTTPStatus.NOT_FOUND, str(error))


def _policy() -> str:
    """Nothing from elsewhere, no inline script but the import map, not inside another page."""
    return (
        f"default-src 'none'; script-src 'self' 'sha256-{page.imports_sha256()}'; style-src 'self' 'unsafe-inline'; "
        "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _json(content: Any, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    body = json.dumps(content, separators=(",", ":")).encode()
    return Answer(status, "application/json", body, headers={"Cache-Control": "no-store", **_SAFETY})


def _text(status: HTTPStatus, text: str, **headers: str) -> Answer:
    return Answer(status, "text/plain; charset=utf-8", text.encode() + b"\n", headers=headers)


def _verdict(good: bool, reasons: dict[str, Any]) -> Answer:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return Answer(status, "application/json", json.dumps(reasons).encode() + b"\n")
