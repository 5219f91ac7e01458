"""What the dashboard's paths answer, over a state folder as a worker leaves it; in a browser: tests/browser."""

from __future__ import annotations

import gzip
import json
from http import HTTPStatus

import pytest

from stream_learner.observing import history, page
from stream_learner.observing.board import Board
from stream_learner.observing.health import Health
from stream_learner.observing.history import History
from stream_learner.observing.metrics import WorkerMetrics
from stream_learner.observing.routes import Routes
from stream_learner.publishing.verdict_log import VerdictLog
from stream_learner.settings import Duration
from stream_learner.settings.base import Secret


@pytest.fixture
def routes(tmp_path):
    made = Routes(tmp_path, Secret("planted"), WorkerMetrics(), Health(Duration.parse("5m")))
    yield made
    made.board.close()


def content(routes, path, query=""):
    answer = routes.get(path, query)
    assert answer.status == HTTPStatus.OK
    return json.loads(answer.body)


def test_every_page_is_there_and_lets_nothing_in_from_elsewhere(routes):
    for path in (
        "/dashboard",
        "/dashboard/app.js",
        "/dashboard/drawing.js",
        "/dashboard/style.css",
        "/dashboard/charts.js",
    ):
        answer = routes.get(path, "").for_client(accepts_gzip=False)
        assert answer.status == HTTPStatus.OK and len(answer.body) > 1000
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert b"http://" not in answer.body.replace(b"http://www.w3.org", b"") or path == "/dashboard/charts.js"


def test_what_is_large_goes_compressed_to_those_who_take_it(routes):
    plain = routes.get("/metrics", "")
    assert gzip.decompress(plain.for_client(accepts_gzip=True).body) == plain.body == plain.for_client(False).body
    library = routes.get("/dashboard/charts.js", "")
    assert library.zipped and library.for_client(True) is library
    assert library.for_client(False).body == gzip.decompress(library.body)


def test_the_root_leads_to_the_dashboard(routes):
    assert routes.get("/", "").headers == {"Location": "/dashboard"}


def test_an_empty_state_has_a_board(routes):
    assert content(routes, "/dashboard/verdicts") == {"verdicts": []}
    versions = content(routes, "/dashboard/versions")
    assert versions["versions"] == [] and "no worker has run" in versions["broken"][""]
    assert content(routes, "/dashboard/now")["worker"]["state"] == "starting"


def test_verdicts_come_from_the_place_asked_for_and_after_a_cut_anew(routes, tmp_path):
    log = VerdictLog(tmp_path / "verdicts.jsonl")
    for slide in range(3):
        log.append({"slide": slide})
    half = log.length * 2 // 3
    assert [v["slide"] for v in content(routes, "/dashboard/verdicts")["verdicts"]] == [0, 1, 2]
    assert content(routes, "/dashboard/verdicts", "after=1")["verdicts"] == [{"place": 2, "slide": 2}]
    log.cut(half)
    assert [v["place"] for v in content(routes, "/dashboard/verdicts")["verdicts"]] == [0, 1]
    log.close()
    assert routes.get("/dashboard/verdicts", "after=x").status == HTTPStatus.BAD_REQUEST


@pytest.mark.parametrize(
    ("path", "authorization", "body", "status"),
    [
        ("/metrics", "Bearer planted", b"{}", HTTPStatus.NOT_FOUND),
        ("/dashboard/commands", "", b"{}", HTTPStatus.UNAUTHORIZED),
        ("/dashboard/commands", "Bearer plante", b"{}", HTTPStatus.UNAUTHORIZED),
        ("/dashboard/commands", "Bearer planted", b"{}", HTTPStatus.BAD_REQUEST),
        ("/dashboard/commands", "Bearer planted", b"[" * 4000, HTTPStatus.BAD_REQUEST),
        ("/dashboard/commands", "Bearer planted", b'{"name": "pin", "version": "x"}', HTTPStatus.BAD_REQUEST),
        ("/dashboard/commands", "Bearer planted", b'{"name": "pin", "version": 7}', HTTPStatus.BAD_REQUEST),
    ],
)
def test_a_command_is_refused(routes, tmp_path, path, authorization, body, status):
    assert routes.post(path, authorization, body).status == status
    assert not (tmp_path / "commands").exists()


def test_without_a_token_in_the_config_nobody_commands(tmp_path):
    answer = Routes(tmp_path, None, None, None).post("/dashboard/commands", "Bearer None", b"{}")
    assert answer.status == HTTPStatus.FORBIDDEN and b"observing.token" in answer.body


def test_a_long_history_stays_small_and_reaches_back_to_the_start():
    counted = iter(range(10**6))
    kept = History(lambda: {"count": float(next(counted))}, step_s=3600.0)
    for _ in range(5000):
        kept.take()
    series = kept.series()
    assert history.CAPACITY // 2 <= len(series["seconds"]) <= history.CAPACITY
    assert series["values"]["count"][0] == 0.0 and series["values"]["count"] == sorted(series["values"]["count"])
    kept.close()


def test_a_report_is_one_file_that_holds_everything_and_ends_no_script_early(tmp_path):
    log = VerdictLog(tmp_path / "verdicts.jsonl")
    log.append({"slide": 0, "reason": "</script><script>alert(1)</script>"})
    log.close()
    text = page.whole(Board(tmp_path, None, None))
    assert "/dashboard/style.css" not in text and 'src="' not in text
    assert text.count("</script>") == 3 and "alert(1)" in text
