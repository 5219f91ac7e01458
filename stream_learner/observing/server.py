"""The HTTP side: /metrics for Prometheus, /healthz and /readyz for the platform, /dashboard for people."""

from __future__ import annotations

import errno
import logging
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from stream_learner.errors import ConfigError
from stream_learner.observing.routes import MAX_BODY_BYTES, Answer, Routes
from stream_learner.settings import Observing

_log = logging.getLogger(__name__)

_CLOSE_POLL_S = 0.1  # how soon `close` is noticed
_CLIENT_TIMEOUT_S = 5.0  # a client that sends or reads slower is dropped


class ObservingServer:
    """Serves from its own daemon thread, from construction until `close`.

    Raises `ConfigError` naming `observing.port` or `observing.host` where the address cannot be taken.
    """

    def __init__(self, settings: Observing, routes: Routes) -> None:
        self._server = _bind(settings, routes)
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
            self._server.routes.board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a slow client must not hold the shutdown

    def __init__(self, address: tuple[str, int], routes: Routes) -> None:
        self.routes = routes
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
    """GET, HEAD and POST as `Routes` answers them; other methods are 501."""

    server: _Server
    timeout = _CLIENT_TIMEOUT_S
    server_version = "stream-learner"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(self._got(), with_body=True)

    def do_HEAD(self) -> None:
        self._answer(self._got(), with_body=False)

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return
        body = self.rfile.read(int(length))
        path = self.path.partition("?")[0]
        self._answer(self.server.routes.post(path, self.headers.get("Authorization", ""), body), with_body=True)

    def _got(self) -> Answer:
        path, _, query = self.path.partition("?")
        return self.server.routes.get(path, query)

    def _answer(self, answer: Answer, *, with_body: bool) -> None:
        sent = answer.for_client("gzip" in self.headers.get("Accept-Encoding", ""))
        self.send_response(sent.status)
        self.send_header("Content-Type", sent.kind)
        self.send_header("Content-Length", str(len(sent.body)))
        self.send_header("Vary", "Accept-Encoding")
        if sent.zipped:
            self.send_header("Content-Encoding", "gzip")
        for name, value in sent.headers.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(sent.body)

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug("http", extra={"fields": {"client": self.address_string(), "request": format % args}})


def _bind(settings: Observing, routes: Routes) -> _Server:
    try:
        return _Server((settings.host, settings.port), routes)
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
