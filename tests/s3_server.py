"""A real S3-speaking server (moto's) over HTTP in a thread, and the faults of one laid over it.

moto keeps one S3 for the whole process, so each test makes a bucket of its own.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

import boto3
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

REGION = "us-east-1"
_ERRORS = {
    403: ("403 Forbidden", "AccessDenied"),
    500: ("500 Internal Server Error", "InternalError"),
    501: ("501 Not Implemented", "NotImplemented"),
    503: ("503 Slow Down", "SlowDown"),
}
_NAMES = itertools.count(1)

Look = Callable[[str, str, dict[str, Any]], int | None]
"""Given method, path and WSGI environment of a request: an error to answer with, or None. It may also wait."""


def nothing_wrong(method: str, path: str, environ: dict[str, Any]) -> int | None:
    return None


class S3Server:
    """`before` is asked before a request is carried out, `after` when it was: what it says hides the real answer."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # which otherwise tells of every request
        self._app = DomainDispatcherApplication(create_backend_app)
        self.before: Look = nothing_wrong
        self.after: Look = nothing_wrong
        self._server = make_server("127.0.0.1", 0, self._answer, threaded=True, request_handler=MotoRequestHandler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        keys = {"aws_access_key_id": "id", "aws_secret_access_key": "hush-hush", "region_name": REGION}
        self._owner = boto3.client("s3", endpoint_url=self.url, **keys)

    def _answer(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        request = environ["REQUEST_METHOD"], environ["PATH_INFO"], environ
        error = self.before(*request)
        if error is None:
            answers: list[Any] = []
            body = list(self._app(environ, lambda *answer: answers.append(answer)))
            error = self.after(*request)
            if error is None:
                start(*answers[-1])
                return body
        status, code = _ERRORS[error]
        text = f"<Error><Code>{code}</Code><Message>{code} of the test</Message></Error>".encode()
        start(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))])
        return [text]

    def whole(self) -> None:
        """No more faults."""
        self.before = self.after = nothing_wrong

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def options(self) -> dict[str, Any]:
        """`checkpoints.options` that lead here."""
        return {"key": "id", "secret": "hush-hush", "client_kwargs": {"endpoint_url": self.url, "region_name": REGION}}

    def bucket(self) -> Bucket:
        return Bucket(self._owner, f"bucket-{next(_NAMES)}")


class Bucket:
    """A bucket as its owner sees it, past the code under test."""

    def __init__(self, client: Any, name: str) -> None:
        self._client, self.name = client, name
        self._client.create_bucket(Bucket=name)

    def listed(self) -> set[str]:
        return {entry["Key"] for entry in self._client.list_objects_v2(Bucket=self.name).get("Contents", [])}

    def read(self, key: str) -> bytes:
        content: bytes = self._client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def put(self, key: str, content: bytes) -> None:
        self._client.put_object(Bucket=self.name, Key=key, Body=content)

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self.name, Key=key)
