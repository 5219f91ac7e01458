"""The HTTP side, over real sockets."""

import http.client
import json
import socket

import pytest
from prometheus_client.parser import text_string_to_metric_families

from stream_learner.errors import ConfigError
from stream_learner.observing.health import Health
from stream_learner.observing.metrics import WorkerMetrics
from stream_learner.observing.routes import Routes
from stream_learner.observing.server import ObservingServer
from stream_learner.settings import Duration, Observing


@pytest.fixture
def parts():
    return WorkerMetrics(), Health(Duration.parse("5m"))


@pytest.fixture
def routes(parts, tmp_path):
    return Routes(tmp_path, None, *parts)


@pytest.fixture
def server(routes):
    with ObservingServer(Observing(port=0), routes) as serving:
        yield serving


def ask(server, path, method="GET"):
    connection = http.client.HTTPConnection(*server.address, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def test_metrics_are_served(server, parts):
    parts[0].slides.inc(3)
    status, headers, body = ask(server, "/metrics")
    families = {family.name: family for family in text_string_to_metric_families(body.decode())}
    assert status == 200 and headers["Content-Type"].startswith("text/plain")
    assert families["stream_learner_slides"].samples[0].value == 3


def test_health_and_readiness_follow_the_worker(server, parts):
    health = parts[1]
    assert [ask(server, path)[0] for path in ("/healthz", "/readyz")] == [200, 503]
    health.running()
    assert [ask(server, path)[0] for path in ("/healthz", "/readyz?verbose=1")] == [200, 200]
    health.failed("no disk")
    status, headers, body = ask(server, "/healthz")
    assert status == 503 and headers["Content-Type"] == "application/json"
    assert json.loads(body)["reason"] == "no disk" and json.loads(body)["state"] == "failed"


def test_head_has_no_body_and_other_paths_are_404(server):
    status, headers, body = ask(server, "/metrics", "HEAD")
    assert status == 200 and body == b"" and int(headers["Content-Length"]) > 1000
    for path in ("/dashboard/../x", "/metrics/x", "/../etc/passwd", "/healthz%00"):
        assert ask(server, path)[0] == 404
    assert ask(server, "/metrics", "PUT")[0] == 501


def test_a_slow_client_holds_nobody_up(server):
    with socket.create_connection(server.address) as silent:
        silent.sendall(b"GET /met")
        assert ask(server, "/healthz")[0] == 200


def test_a_client_that_hangs_up_leaves_the_server_whole(server):
    for _ in range(5):
        with socket.create_connection(server.address) as client:
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    assert ask(server, "/healthz")[0] == 200


def test_a_taken_port_is_named_with_its_key(server, routes):
    port = server.address[1]
    with pytest.raises(ConfigError, match=rf"observing\.port: cannot listen on port {port} of 127\.0\.0\.1"):
        ObservingServer(Observing(port=port), routes)


def test_a_foreign_host_is_named_with_its_key(routes):
    with pytest.raises(ConfigError, match=r"observing\.host: cannot listen on '192\.0\.2\.1'"):
        ObservingServer(Observing(host="192.0.2.1", port=0), routes)


def test_close_frees_the_port_and_may_be_repeated(routes):
    first = ObservingServer(Observing(port=0), routes)
    port = first.address[1]
    assert port > 0
    first.close()
    first.close()
    with ObservingServer(Observing(port=port), routes) as second:
        assert second.address == ("127.0.0.1", port)
