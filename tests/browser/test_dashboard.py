"""The dashboard in a real browser (headless Chromium), against a worker that goes on learning meanwhile."""

from __future__ import annotations

import json
import re
import shutil
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
from processes import Background, changed, learner, version_numbers, write_config
from shops import CONFIG, PARTITIONS, SEED, shop
from test_next_item import TASK

from stream_learner.observing.page import MODULES
from stream_learner.simulate import limited, write_jsonl
from stream_learner.simulate.world import Drift

CHROMIUM = shutil.which("chromium")
SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
TOKEN = "a token of the tests, planted"
PATIENCE_MS = 120_000
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

# Pairs of texts and charts that are both visible and stand over one another, as "id or text / id or text".
OVERLAPS = """() => {
  const shown = [...document.querySelectorAll("main p, main dt, main dd, main h2, main h3, main .chart, header *")]
    .filter((one) => one.checkVisibility() && one.tagName !== "OPTION" && one.getBoundingClientRect().width > 0);
  const inside = (a, b) => a.contains(b) || b.contains(a);
  const name = (one) => one.id || one.textContent.slice(0, 40);
  return shown.flatMap((a, i) => shown.slice(i + 1).filter((b) => {
    const [p, q] = [a.getBoundingClientRect(), b.getBoundingClientRect()];
    const over = Math.min(p.right, q.right) - Math.max(p.left, q.left) > 1
      && Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top) > 1;
    return over && !inside(a, b) && a.closest("header") === b.closest("header");
  }).map((b) => `${name(a)} / ${name(b)}`));
}"""

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not here: make test-browser"),
]


class Live:
    """A worker that follows files, its address, and events kept back to be appended later."""

    def __init__(self, folder: Path) -> None:
        drift = (Drift.parse("price@1.5:1.5"),)
        write_jsonl(folder / "all", limited(shop(drift=drift).chunks(), 14_000), partitions=PARTITIONS, seed=SEED)
        self._files = sorted((folder / "all").iterdir())
        self._events = folder / "events"
        self._events.mkdir()
        self._give(0.0, 0.75)
        self.state = folder / "state"
        observing = {"port": 0, "log_level": "info", "token": "${DASHBOARD_TOKEN}"}
        self.config = write_config(
            folder / "config.yaml",
            changed(
                CONFIG,
                source__files={"path": str(self._events), "follow": True},
                observing=observing,
                quarantine__warm_up="30m",
                tasks=["conversion", "next_item"],
                next_item=TASK,
            ),
        )

    def go_on(self) -> None:
        """The rest of the events arrives."""
        self._give(0.75, 1.0)

    def _give(self, begin: float, end: float) -> None:
        for path in self._files:
            lines = path.read_bytes().splitlines(keepends=True)
            part = lines[int(len(lines) * begin) : int(len(lines) * end)]
            with (self._events / path.name).open("ab") as out:
                out.write(b"".join(part))


def two_versions(state: Path, model: str) -> bool:
    return len(version_numbers(state, model)) >= 2


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Live, Background, str]]:
    folder = tmp_path_factory.mktemp("dashboard")
    shown = Live(folder)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DASHBOARD_TOKEN", TOKEN)
        with Background(folder, "run", "-c", shown.config, "--state", shown.state) as worker:
            address = re.search(r"http://[\d.]+:\d+", worker.wait_for_log("metrics and health at"))
            assert address is not None
            for model in ("shop", "next_item"):
                worker.wait_for("two versions", partial(two_versions, shown.state, model))
            yield shown, worker, address[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=_FLAGS)
        yield opened
        opened.close()


class Page:
    """A tab that notes what it complains of and whom it asks."""

    def __init__(self, browser: Any, address: str, width: int = 1024, scheme: str = "light") -> None:
        self._context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.tab = self._context.new_page()
        self.tab.set_default_timeout(PATIENCE_MS)
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.tab.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(f"{address}/dashboard")
        self.tab.wait_for_selector("#versions tr")

    def choose(self, model: str) -> None:
        """Looks at another model of the worker."""
        self.tab.select_option("#choice", model)
        expect(self.tab.locator("#model")).to_have_text(model, timeout=PATIENCE_MS)

    def look(self, name: str) -> None:
        """Leaves a screenshot; nothing may be wider than the window, nor stand over something else."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.tab.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)
        assert self.tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), "wider than the window"
        assert self.tab.evaluate(OVERLAPS) == []

    def close(self) -> None:
        self._context.close()


def slides(page: Page) -> int:
    return int(page.tab.get_attribute("body", "data-slides"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1024, 1920])
def test_it_loads_without_a_complaint_and_asks_nobody_else(live, browser, width, scheme):
    page = Page(browser, live[2], width, scheme)
    page.tab.wait_for_selector('body[data-slides]:not([data-slides="0"])')
    page.look(f"dashboard-{width}-{scheme}")
    assert page.tab.locator("canvas").count() >= 9
    page.choose("next_item")
    page.look(f"next-item-{width}-{scheme}")
    assert page.complaints == []
    assert [url for url in page.asked if not url.startswith(live[2])] == []
    page.close()


def test_the_page_is_light(live):
    """Below 500 kB over the wire, the charting library included."""
    scripts = [f"/{name}.js" for name in ("app", "charts", *MODULES)]
    names = ("", *scripts, "/style.css", "/now", "/verdicts", "/versions")
    requests = [urllib.request.Request(f"{live[2]}/dashboard{n}", headers={"Accept-Encoding": "gzip"}) for n in names]
    assert sum(len(urllib.request.urlopen(request).read()) for request in requests) < 500_000


def test_it_follows_the_worker_and_shows_the_drift_where_it_is(live, browser):
    shown, _, address = live
    page = Page(browser, address)
    page.tab.wait_for_selector('body[data-slides]:not([data-slides="0"])')
    before = slides(page)
    shown.go_on()
    page.tab.wait_for_selector(f'body:not([data-slides="{before}"])')
    expect(page.tab.locator("#feature")).to_have_value("price", timeout=PATIENCE_MS)
    assert page.tab.locator("#verdicts tr").count() >= 2
    assert "has been in service since" in page.tab.inner_text("#story")
    assert page.tab.locator("#kinds tr").count() == 4
    expect(page.tab.locator("#happened")).to_contain_text("The input that moved most was price", timeout=PATIENCE_MS)
    for chart in ("ages", "strata"):
        assert "Share of the replay buffer" not in page.tab.locator(f"#{chart}").get_attribute("aria-label")  # drawn
    page.close()


def test_the_other_model_has_its_versions_metrics_verdicts_and_card(live, browser):
    page = Page(browser, live[2])
    page.choose("next_item")
    assert "MRR@20" in page.tab.inner_text("#versions-head") and "Recall@20" in page.tab.inner_text("#facts")
    assert page.tab.locator("#versions tr").count() >= 2
    assert "of its MRR" in page.tab.inner_text("#verdicts") or "no champion yet" in page.tab.inner_text("#verdicts")
    expect(page.tab.locator("#rankings")).to_contain_text("candidate, new items", timeout=PATIENCE_MS)
    assert not page.tab.locator("#kinds").is_visible() and not page.tab.locator("#calibration").is_visible()
    page.tab.locator("#versions a").first.click()
    page.tab.wait_for_selector("h2:text('What moves the recommendations')")
    page.tab.go_back()
    expect(page.tab.locator("#model")).to_have_text("next_item", timeout=PATIENCE_MS)  # the address keeps the choice
    assert page.complaints == []
    page.close()


def test_a_square_of_the_heat_map_shows_both_distributions(live, browser):
    page = Page(browser, live[2])
    page.tab.wait_for_selector("#feature option[value=price]", state="attached")
    page.tab.locator("#heat").scroll_into_view_if_needed()
    box = page.tab.locator("#heat").bounding_box()
    page.tab.mouse.click(box["x"] + box["width"] * 0.6, box["y"] + 30)  # the uppermost row: user
    expect(page.tab.locator("#feature")).to_have_value("user", timeout=PATIENCE_MS)
    page.tab.mouse.click(box["x"] + 50, box["y"] + 57)  # the name before the row below
    expect(page.tab.locator("#feature")).to_have_value("price", timeout=PATIENCE_MS)
    told = page.tab.locator("#spread").get_attribute("aria-label")
    assert "price, reference" in told and "to " in told
    assert page.complaints == []
    page.close()


def test_two_versions_can_be_compared_and_a_card_opened(live, browser):
    page = Page(browser, live[2])
    for at in (0, 1):
        page.tab.locator("#versions input[type=checkbox]").nth(at).check()
    expect(page.tab.locator("#difference")).to_contain_text("metrics.auc", timeout=PATIENCE_MS)
    page.tab.locator("#versions a").first.click()
    page.tab.wait_for_selector("h2:text('What moves the scores')")
    assert page.tab.locator("svg circle").count() >= 2
    assert page.complaints == []
    page.close()


def test_every_control_can_be_reached_with_the_keyboard(live, browser):
    page = Page(browser, live[2])
    reached = set()
    for _ in range(60):
        page.tab.keyboard.press("Tab")
        reached.add(page.tab.evaluate("document.activeElement.id || document.activeElement.ariaLabel || ''"))
    assert {"choice", "theme", "feature", "passed-only"} <= reached
    assert any(name.startswith("Pin ") for name in reached)
    page.close()


def test_a_rollback_needs_the_token_and_then_works(live, browser):
    page = Page(browser, live[2])
    page.tab.get_by_role("button", name=re.compile(r"^Roll back \d+")).first.click()
    page.tab.fill("#token", "wrong")
    page.tab.click("#confirm")
    expect(page.tab.locator("#dialog-error")).to_contain_text("wrong token", timeout=PATIENCE_MS)
    page.tab.fill("#token", TOKEN)
    page.tab.click("#confirm")
    page.tab.wait_for_selector("#versions :text('rollback of')")
    page.tab.get_by_role("button", name=re.compile(r"^Pin \d+")).last.click()
    page.tab.fill("#token", TOKEN)
    page.tab.click("#confirm")
    page.tab.wait_for_selector("#versions :text('(pinned)')")
    page.tab.get_by_role("button", name=re.compile(r"^Unpin \d+")).click()
    page.tab.fill("#token", TOKEN)
    page.tab.click("#confirm")
    expect(page.tab.locator("#versions :text('(pinned)')")).to_have_count(0, timeout=PATIENCE_MS)
    page.choose("next_item")
    assert page.tab.locator("#versions :text('rollback of')").count() == 0
    page.tab.get_by_role("button", name=re.compile(r"^Roll back \d+")).first.click()
    page.tab.fill("#token", TOKEN)
    page.tab.click("#confirm")
    page.tab.wait_for_selector("#versions :text('rollback of')")
    page.close()


def test_commands_without_the_token_or_for_no_version_are_refused(live):
    def post(authorization: str, content: dict[str, Any]) -> int:
        request = urllib.request.Request(
            f"{live[2]}/dashboard/commands", json.dumps(content).encode(), {"Authorization": authorization}
        )
        try:
            return int(urllib.request.urlopen(request).status)
        except urllib.error.HTTPError as error:
            with error:
                return int(error.code)

    rollback = {"name": "rollback", "version": version_numbers(live[0].state)[0]}
    assert post("", rollback) == post("Bearer", rollback) == post("Bearer x", rollback) == 401
    assert post(f"Bearer {TOKEN}", {**rollback, "version": 5}) == 400
    assert post(f"Bearer {TOKEN}", {**rollback, "name": "rm"}) == 400


def test_the_token_is_nowhere_to_be_seen(live):
    shown, worker, address = live
    answers = [urllib.request.urlopen(f"{address}{path}").read().decode() for path in ("/metrics", "/dashboard/now")]
    assert TOKEN not in worker.log() and all(TOKEN not in text for text in answers)
    files = [path for path in shown.state.rglob("*") if path.is_file()]
    assert files and all(TOKEN.encode() not in path.read_bytes() for path in files)


def test_a_report_shows_the_same_without_a_worker(live, browser, tmp_path):
    learner("report", "--state", live[0].state, "--out", tmp_path / "report.html")
    context = browser.new_context()
    tab, complaints = context.new_page(), []
    tab.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto((tmp_path / "report.html").as_uri())
    tab.wait_for_selector("#versions tr")
    assert complaints == [] and tab.locator("#verdicts tr").count() >= 2
    tab.select_option("#choice", "next_item")
    assert "MRR@20" in tab.inner_text("#versions-head") and complaints == []
    assert tab.get_by_role("button", name=re.compile("^Roll back")).count() == 0
    context.close()
