"""The HTTP side: /metrics for Prometheus, /healthz and /readyz for the platform. Read-only."""

from __future__ import annotations

import errno
import json
import logging
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from stream_learner.errors import ConfigError
from stream_learner.observing.health import Health
from stream_learner.observing.metrics import CONTENT_TYPE, WorkerMetrics
from stream_learner.settings import Observing

_log = logging.getLogger(__name__)

_CLOSE_POLL_S = 0.1  # how soon `close` is noticed
_CLIENT_TIMEOUT_S = 5.0  # a client that sends or reads slower is dropped


class ObservingServer:
    """Serves from its own daemon thread, from construction until `close`.

    Raises `ConfigError` naming `observing.port` or `observing.host` where the address cannot be taken.
    """

    def __init__(self, settings: Observing, metrics: WorkerMetrics, health: Health) -> None:
        self._server = _bind(settings, metrics, health)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_CLOSE_POLL_S,), name="observing", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port really listened on."""
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def close(self) -> None:
        """Stops listening. Idempotent."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a slow client must not hold the shutdown

    def __init__(self, address: tuple[str, int], metrics: WorkerMetrics, health: Health) -> None:
        self.metrics = metrics
        self.health = health
        super().__init__(address, _Requests)

    def server_bind(self) -> None:
        # HTTPServer asks the name service for the host's full name here, which may take seconds and is never used.
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        _log.debug("request not answered", exc_info=True, extra={"fields": {"client": str(client_address)}})


class _Requests(BaseHTTPRequestHandler):
    """GET and HEAD on the three paths; anything else is 404, other methods 501."""

    server: _Server
    timeout = _CLIENT_TIMEOUT_S
    server_version = "stream-learner"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        status, kind, body = self._content(self.path.partition("?")[0])
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _content(self, path: str) -> tuple[HTTPStatus, str, bytes]:
        if path == "/metrics":
            return HTTPStatus.OK, CONTENT_TYPE, self.server.metrics.exposition()
        if path == "/healthz":
            return _verdict(*self.server.health.live())
        if path == "/readyz":
            return _verdict(*self.server.health.ready())
        return HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"/metrics /healthz /readyz\n"

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug("http", extra={"fields": {"client": self.address_string(), "request": format % args}})


def _verdict(good: bool, reasons: dict[str, Any]) -> tuple[HTTPStatus, str, bytes]:
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return status, "application/json", json.dumps(reasons).encode() + b"\n"


def _bind(settings: Observing, metrics: WorkerMetrics, health: Health) -> _Server:
    try:
        return _Server((settings.host, settings.port), metrics, health)
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise ConfigError(
                f"observing.port: cannot listen on port {settings.port} of {settings.host}: {why}; "
                "choose another port, or 0 for any free one"
            ) from error
        raise ConfigError(
            f"observing.host: cannot listen on {settings.host!r}: {why}; use an address of this machine"
        ) from error
