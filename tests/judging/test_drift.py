"""The four kinds of drift, told apart; no alarms without drift; a restart changes nothing."""

from dataclasses import replace

import numpy as np
import pytest

from stream_learner.events import ExampleBatch
from stream_learner.judging.drift import DriftWatch
from stream_learner.judging.drift_inputs import InputColumns
from stream_learner.judging.drift_tests import KINDS
from stream_learner.judging.metrics import probabilities
from stream_learner.judging.two_sample import separation
from stream_learner.settings import Drift, Duration
from tests.windows.streams import same_state

SLIDE = 10 * 60_000_000
ROWS = 800  # a slide
COLUMNS = InputColumns({"price": 0, "age": 1}, {"item": 1}, ("new_user", "new_item"), 0)
SETTINGS = Drift(run_length=Duration.parse("90d"))
CHANGED = 60  # slides


class Shop:
    """Examples whose purchases follow a known model on two correlated numbers; labels are known at once."""

    def __init__(self, change=None, seed=0, rows=ROWS):
        self.change, self.seed, self.rows = change, seed, rows

    def slide(self, number):
        rng, n = np.random.default_rng([self.seed, number]), self.rows
        changed = number >= CHANGED
        is_now = lambda kind: changed and self.change == kind  # noqa: E731
        price, other = rng.standard_normal((2, n))
        if is_now("shifted"):
            price = price + 1.0
        age = other if is_now("uncoupled") else 0.9 * price + np.sqrt(1 - 0.81) * other
        z = -3.0 + price
        truth = z * (0.2 if is_now("forgotten") else 1) - (2.2 if is_now("forgotten") else 0)
        truth = truth + (0.8 if is_now("bought more") else 0.0)
        label = (rng.random(n) < probabilities(truth)).astype(np.float32)
        price = np.where(rng.random(n) < (0.3 if is_now("missing") else 0.01), np.nan, price)
        logits = z.astype(np.float32)
        examples = ExampleBatch(
            time=np.full(n, number * SLIDE),
            ids=np.stack([rng.integers(1, 4000, n), rng.zipf(1.5, n) % 900 + 1], 1).astype(np.uint64),
            numbers=np.stack([price, age], 1).astype(np.float32),
            label=label,
            logit_candidate=logits,
            logit_champion=logits + np.float32(1.0 if is_now("candidate apart") else 0.0),
            logit_served=logits,
            baseline=np.full((n, 4), 0.05, np.float32),
            judged=np.ones(n, bool),
            unseen=rng.random((n, 2)) < (0.3 if is_now("new ids") else 0.05),
        )
        slow = 3000 if is_now("slower") else 500
        delays = np.where(label > 0.5, slow * rng.lognormal(0, 1, n), np.nan).astype(np.float32)
        return examples, delays, logits


def heard(watch, shop, slides, published=40):
    """(slide, finding) of every alarm."""
    alarms = []
    for number in slides:
        examples, delays, logits = shop.slide(number)
        at = (number + 1) * SLIDE
        watch.arrived(examples, number, at)
        span = number * SLIDE, at
        alarms += [(number, finding) for finding in watch.matured(examples, delays, logits, number, span)]
        if number == published:
            watch.published(at, lambda sample: (-3.0 + np.nan_to_num(sample.numbers[:, 0])).astype(np.float32))
    return alarms


def alarms_of(change, settings=SETTINGS, slides=90, seed=0, rows=ROWS):
    return heard(DriftWatch(COLUMNS, settings, seed), Shop(change, seed, rows), range(slides))


@pytest.mark.parametrize(
    ("change", "kind", "subject", "measure"),
    [
        ("shifted", "inputs", "price", "psi"),
        ("missing", "inputs", "price", "missing"),
        ("new ids", "inputs", "new_item", "new"),
        ("uncoupled", "inputs", "all", "auc"),
        ("bought more", "labels", "label", "rate"),
        ("slower", "labels", "delay", "psi"),
        ("shifted", "predictions", "champion", "psi"),
        ("candidate apart", "predictions", "candidate", "psi"),
        ("bought more", "relation", "offset", "page_hinkley"),
        ("forgotten", "relation", "slope", "adwin"),
    ],
)
def test_each_change_is_found_by_name(change, kind, subject, measure):
    alarms = alarms_of(change)
    found = [number for number, f in alarms if (f.kind, f.subject, f.measure) == (kind, subject, measure)]
    assert found and CHANGED <= found[0] <= CHANGED + 12
    assert all(number >= CHANGED for number, _ in alarms)


def test_a_change_of_inputs_is_not_one_of_the_relation_nor_the_other_way_round():
    assert {finding.kind for _, finding in alarms_of("shifted")} == {"inputs", "labels", "predictions"}
    assert {finding.kind for _, finding in alarms_of("uncoupled")} == {"inputs"}
    assert {finding.kind for _, finding in alarms_of("forgotten")} <= {"relation", "labels"}


@pytest.mark.parametrize("rows", [200, 3000])
def test_no_drift_no_alarms(rows):
    assert [alarms_of(None, seed=seed, slides=130, rows=rows) for seed in (1, 2)] == [[], []]


@pytest.mark.parametrize("reference", ["last_week", "fixed"])
def test_other_references(reference):
    settings = Drift(reference=reference, fixed=Duration.parse("6h"), interval=Duration.parse("1h"))
    week = 7 * 144
    watch, shop = DriftWatch(COLUMNS, settings, 0), Shop("shifted", rows=250)
    quiet = range(CHANGED) if reference == "fixed" else range(CHANGED - 24, CHANGED)
    assert heard(watch, shop, quiet, published=-1) == []
    later = range(CHANGED, CHANGED + 12)
    if reference == "last_week":
        assert heard(watch, shop, later, published=-1) == []  # nothing is known of the week before
        later = range(CHANGED - 24 + week, CHANGED - 12 + week)  # shifted now, not a week before
    found = {(finding.subject, finding.measure) for _, finding in heard(watch, shop, later, published=-1)}
    assert ("price", "psi") in found


def test_psi_of_the_gate_is_a_number_by_feature():
    watch = DriftWatch(COLUMNS, SETTINGS, 0)
    heard(watch, Shop("shifted"), range(CHANGED + 7))
    psi = watch.psi((CHANGED + 7) * SLIDE)
    assert set(psi) == set(COLUMNS.names)
    assert psi["price"] > 0.5 and psi["item"] < 0.05
    assert DriftWatch(COLUMNS, SETTINGS, 0).psi(SLIDE) == {}


def test_an_estimate_before_labels():
    watch = DriftWatch(COLUMNS, SETTINGS, 0)
    assert watch.estimate() == {}
    heard(watch, Shop(), range(CHANGED))
    seen = watch.estimate()
    assert seen["n"] > 0 and 0.9 < seen["calibration"] < 1.1 and 0.6 < seen["auc"] < 0.9


def test_the_report_counts_alarms_by_kind():
    watch = DriftWatch(COLUMNS, SETTINGS, 0)
    alarms = heard(watch, Shop("bought more"), range(90))
    report = watch.report()
    assert report["alarms"] == {kind: sum(f.kind == kind for _, f in alarms) for kind in KINDS}
    assert report["last_alarms"][-1]["kind"] == alarms[-1][1].kind
    assert "inputs/price/psi" in report["tests"]
    divergences = report["jensen_shannon"]
    assert set(divergences) == set(COLUMNS.names)
    assert all(0 <= divergence < 0.01 for divergence in divergences.values())  # the inputs have not changed


@pytest.mark.parametrize("cut", [0, 41, 62, 75])
def test_a_restored_watch_goes_on_bit_for_bit(cut):
    shop, whole = Shop("bought more", rows=300), DriftWatch(COLUMNS, SETTINGS, 0)
    heard(whole, shop, range(cut))
    again = DriftWatch(COLUMNS, SETTINGS, 0)
    again.restore(whole.capture())
    rest = range(cut, 80)
    assert heard(again, shop, rest) == heard(whole, shop, rest)
    assert same_state(again.capture(), whole.capture())


def test_an_empty_slide_is_nothing():
    watch = DriftWatch(COLUMNS, SETTINGS, 0)
    heard(watch, Shop(), range(45))
    nothing = Shop(rows=0)
    assert heard(watch, nothing, range(45, 60)) == []
    assert watch.psi(60 * SLIDE) == {}


def test_the_two_sample_test_does_not_recognise_users():
    """Rows of a user are alike; unless users are kept apart in the folds, the classifier would know them again."""
    rng = np.random.default_rng(3)
    users = rng.integers(1, 2**63, (2, 100)).astype(np.uint64)
    looks = rng.standard_normal((2, 100, 5))
    now, then = (np.repeat(look, 10, axis=0) for look in looks)
    found = separation(now, then, *(np.repeat(side, 10) for side in users))
    assert found.chance > 0.01
    apart = separation(now + 1.5, then, *(np.repeat(side, 10) for side in users))
    assert apart.auc > 0.8 and apart.chance < 1e-4


def test_scores_that_are_missing_are_left_out():
    watch, shop = DriftWatch(COLUMNS, SETTINGS, 0), Shop()
    examples, delays, _ = shop.slide(0)
    nothing = np.full(len(examples), np.nan, np.float32)
    watch.arrived(replace(examples, logit_champion=nothing), 0, SLIDE)
    assert watch.matured(examples, delays, nothing, 0, (0, SLIDE)) == []
    assert watch.estimate() == {}
