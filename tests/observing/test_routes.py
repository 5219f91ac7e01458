"""What the dashboard's paths answer, over a state folder as a worker leaves it; in a browser: tests/browser."""

from __future__ import annotations

import gzip
import json
import sys
from http import HTTPStatus
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "publishing"))
from versions import Files, manifest_of

from stream_learner.observing import history, page
from stream_learner.observing.board import Board
from stream_learner.observing.health import Health
from stream_learner.observing.history import History
from stream_learner.observing.metrics import WorkerMetrics
from stream_learner.observing.routes import Routes
from stream_learner.publishing.checkpoints import Checkpoints
from stream_learner.publishing.commands import Commands
from stream_learner.publishing.storage import LocalStorage
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
    return json.loads(answer.for_client(accepts_gzip=False).body)


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
    [model] = content(routes, "/dashboard/versions")["models"]
    assert model["versions"] == [] and "no worker has run" in model["broken"][""]
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
        (
            "/dashboard/commands",
            "Bearer planted",
            b'{"name": "pin", "version": 7, "model": 1}',
            HTTPStatus.BAD_REQUEST,
        ),
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


def test_a_thousand_verdicts_are_light_and_the_newest_tell_how_features_are_spread(routes, tmp_path):
    log = VerdictLog(tmp_path / "verdicts.jsonl")
    shares = {f"feature {n}": {"bins": ["to 1"] * 12, "now": [0.1] * 12, "reference": [0.1] * 12} for n in range(30)}
    tests = {f"inputs/feature {n}/psi": {"value": 0.1234567, "p": 0.7654321} for n in range(60)}
    rules = [{"name": name, "threshold": -0.01, "text": "long " * 40} for name in ("auc", "against_champion")]
    for slide in range(1200):
        drift = {"findings": [], "tests": tests, "shares": shares, "reference": "champion"}
        told = {"slide": slide, "slide_end": slide, "passed": False, "reason": f"held: {slide}", "parent": 1}
        log.append({**told, "evidence": {"gain": slide / 7, "n": 5}, "rules": rules, "psi": {}, "drift": drift})
    log.close()
    answer = routes.get("/dashboard/verdicts", "").for_client(accepts_gzip=True)
    assert len(answer.body) < 100_000
    verdicts = json.loads(gzip.decompress(answer.body))["verdicts"]
    assert (len(verdicts), verdicts[0]["place"], verdicts[-1]["slide"]) == (1000, 200, 1199)
    assert [bool(v["drift"]["shares"]) for v in verdicts] == [False] * 952 + [True] * 48
    assert [rule["name"] for rule in verdicts[0]["rules"]] == ["against_champion"]


def test_a_card_is_shown_and_its_absence_told(routes, tmp_path):
    where = {"model": "conversion", "checkpoints": str(tmp_path / "checkpoints")}
    (tmp_path / "worker.json").write_text(json.dumps(where))
    folder = tmp_path / "checkpoints" / "conversion" / "1700000000"
    folder.mkdir(parents=True)
    (folder / "card.html").write_text("<h1>a card</h1>")
    shown = routes.get("/dashboard/card", "version=1700000000")
    assert (shown.status, shown.body) == (HTTPStatus.OK, b"<h1>a card</h1>")
    assert "default-src 'none'" in shown.headers["Content-Security-Policy"]
    assert routes.get("/dashboard/card", "version=1700000001").status == HTTPStatus.NOT_FOUND
    assert routes.get("/dashboard/card", "version=../x").status == HTTPStatus.BAD_REQUEST


def test_tabs_that_ask_together_get_one_answer(tmp_path, monkeypatch):
    metrics = WorkerMetrics()
    shared = Routes(tmp_path, None, metrics, None)
    first = shared.get("/dashboard/now", "")
    metrics.slides.inc()
    assert shared.get("/dashboard/now", "") is first
    monkeypatch.setattr("stream_learner.observing.routes.SHARED_S", -1.0)
    assert content(shared, "/dashboard/now")["metrics"]["slides_total"] == [[{}, 1.0]]
    shared.board.close()


def test_both_tasks_are_shown_and_a_command_says_which_model_it_is_for(routes, tmp_path):
    root = tmp_path / "checkpoints"
    tasks = {"shop": "conversion", "next_item": "next_item"}
    (tmp_path / "worker.json").write_text(json.dumps({"model": "shop", "checkpoints": str(root), "tasks": tasks}))
    metrics = {"mrr@20": 0.2, "recall@20": 0.5, "catalogue": 40, "lifetime": {"candidate": {"mrr@20": 0.1}}}
    for manifest in (manifest_of(7, model="shop"), manifest_of(8, model="next_item", metrics=metrics)):
        store = Checkpoints(LocalStorage(root / manifest.model), manifest.model, keep=2)
        store.publish(manifest.version, Files().write, manifest, lambda _: None)
    shop, ranking = content(routes, "/dashboard/versions")["models"]
    assert (shop["model"], shop["task"], [v["version"] for v in shop["versions"]]) == ("shop", "conversion", [7])
    assert ranking["task"] == "next_item"
    assert ranking["versions"][0]["metrics"] == {"mrr@20": 0.2, "recall@20": 0.5, "catalogue": 40}

    def pin(**asked: object) -> HTTPStatus:
        return routes.post(
            "/dashboard/commands", "Bearer planted", json.dumps({"name": "pin", **asked}).encode()
        ).status

    assert pin(version=8) == pin(version=7, model="next_item") == pin(version=7, model="x") == HTTPStatus.BAD_REQUEST
    assert pin(version=8, model="next_item") == pin(version=7) == HTTPStatus.ACCEPTED
    assert [command.arguments for command in Commands(tmp_path / "commands").pending()] == [
        {"version": 8, "model": "next_item"},
        {"version": 7, "model": "shop"},
    ]


def test_a_verdict_on_rankings_keeps_its_evidence(routes, tmp_path):
    log = VerdictLog(tmp_path / "verdicts.jsonl")
    evidence = {"n": 5, "mrr@20": 0.2, "gain": 0.01}
    rules = [{"name": "against_champion", "threshold": -0.01, "text": "long"}]
    log.append({"slide": 1, "passed": True, "model": "next_item", "evidence": evidence, "rules": rules, "psi": {}})
    log.close()
    [told] = content(routes, "/dashboard/verdicts")["verdicts"]
    assert (told["model"], told["evidence"], told["rules"]) == ("next_item", evidence, rules)
