"""The card of a version as text and as a page."""

from html.parser import HTMLParser

from versions import manifest_of

from stream_learner.judging.observed import Observed
from stream_learner.publishing.card import Moved, Reliability, card
from stream_learner.publishing.card_text import markdown, page

SLICE = {"auc": 0.7, "normalized_entropy": None, "n": 1200, "n_pos": 30}
OBSERVED = Observed(
    span="1d",
    slices={"new_user=yes": SLICE},
    reliability=[{"n": 600, "predicted": 0.02, "observed": 0.01}, {"n": 600, "predicted": 0.2, "observed": 0.25}],
    psi={"price": 0.31, "<b>|item": 0.02},
    findings=[{"kind": "inputs", "measure": "psi", "value": 0.31, "subject": "price", "chance": 0.0}],
    matured=None,
)
MOVED = Moved({"price": 0.12, "item": 0.01}, {"price": 0.4, "item": 0.5}, 0.001, 1024)
RULE = {"name": "auc", "value": 0.7, "threshold": [0.6, 0.9], "passed": True, "text": "AUC is not below"}
MANIFEST = manifest_of(
    1_704_067_200,
    parent=1_704_060_000,
    metrics={"lifetime": {"candidate": SLICE, "prior": SLICE}, "windows": {"1d": {"champion": SLICE}}},
    verdict={"passed": True, "reason": "passed: proven", "rules": [RULE]},
)


class Text(HTMLParser):
    """The words of a page and the tags that were never closed."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.opened: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "link", "path", "circle"):
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("path", "circle"):
            assert self.opened.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def told(**changes: object) -> tuple[str, str]:
    made = card(manifest_of(1_704_067_200, **changes) if changes else MANIFEST, OBSERVED, MOVED)
    return markdown(made), page(made)


def test_it_tells_all_of_a_version():
    text, _ = told()
    for expected in (
        "# conversion, version 1704067200",
        "2024-01-01 00:00:00 UTC of event time. passed: proven",
        "| Follows version | 1704060000 |",
        "| events/0 | 5 | 99 |",
        "| candidate | lifetime | 0.7 | - |",
        "| champion | 1d |",
        "| new_user=yes | 0.7 |",
        "| 600 | 0.2 | 0.25 |",
        "inputs: psi 0.31 of price",
        "| price | 0.31 |",
        "| price | 0.12 | 0.4 |",
        "| auc | 0.7 | 0.6 to 0.9 | passed | AUC is not below |",
    ):
        assert expected in text, expected


def test_the_page_says_the_same_in_well_formed_html():
    text, content = told()
    shown = Text(content)
    assert shown.opened == []
    for word in ("1704060000", "new_user=yes", "<b>|item", "AUC is not below"):
        assert word in "".join(shown.words)
    assert content.count("<circle") == 2 and "http" not in content
    assert "<b>" not in content and "\\|item" in text


def test_names_from_events_cannot_break_the_tables():
    assert "| <b>\\|item | 0.02 |" in told()[0]


def test_a_rollback_refers_to_the_card_of_its_files():
    text, content = told(rollback_of=1_704_000_000)
    assert "files of version 1704000000 under a new number" in text
    assert "Quality by slice" not in text and "<svg" not in content


def test_where_nothing_is_known_yet_it_says_so():
    nothing = Observed(span=None, slices={}, reliability=[], psi={}, findings=[], matured=None)
    made = card(MANIFEST, nothing, Moved({}, {}, 0.0, 0))
    text = markdown(made)
    assert "No drift stood" in text and "No matured example" in text and "No example has been judged" in text
    assert not any(isinstance(part, Reliability) for section in made.sections for part in section.parts)
    assert Text(page(made)).opened == []
