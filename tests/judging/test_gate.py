"""Each rule on both sides of its threshold, and what a verdict says of it."""

import json

import msgspec
import numpy as np
import pytest

from stream_learner import settings
from stream_learner.judging import metrics
from stream_learner.judging.gate import Gate
from stream_learner.judging.verdict import Question

MINUTE = 60_000_000
HOUR = 60 * MINUTE
NOTHING = np.full(0, np.nan, np.float32)


def rules(**changes):
    given = {"min_examples": 100, "min_positives": 10, "calibration": (0.5, 2.0), "max_ne": 1.5, **changes}
    return msgspec.convert(
        given,
        settings.Gate,
        dec_hook=lambda kind, value: settings.Duration.parse(value) if kind is settings.Duration else value,
    )


def question(slide_end=HOUR, **changes):
    return Question(**{"slide": 5, "slide_end": slide_end, "finite": True, "psi": {}, "parent": 17, **changes})


def evidence(n=1000, skill=1.0, seed=0, rate_shift=0.0):
    """Logits that know `skill` of the truth, and labels."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-2, 1.5, n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    return (skill * truth + (1 - skill) * -1.6 + rate_shift).astype(np.float32), labels


def asked(gate, candidate=1.0, champion=0.1, n=1000, **changes):
    good, labels = evidence(n, candidate)
    old = evidence(n, champion)[0] if champion is not None else np.full(n, np.nan, np.float32)
    gate.observe(good, old, labels, changes.get("slide_end", HOUR))
    return gate.judge(question(**changes))


def rule(verdict, name):
    return next(rule for rule in verdict.rules if rule.name == name)


def test_a_better_candidate_passes_with_all_numbers_recorded():
    verdict = asked(Gate(rules()))
    assert verdict.passed and verdict.reason.startswith("passed: proven within 0.01 of the champion's NE: NE gain +0.")
    good, labels = evidence()
    old, _ = evidence(skill=0.1)
    numbers = verdict.evidence
    assert numbers["n"] == 1000 and numbers["n_pos"] == labels.sum()
    assert numbers["candidate_normalized_entropy"] == pytest.approx(metrics.normalized_entropy(good, labels))
    assert numbers["champion_normalized_entropy"] == pytest.approx(metrics.normalized_entropy(old, labels))
    assert numbers["candidate_calibration"] == pytest.approx(metrics.calibration(good, labels))
    gain = metrics.normalized_entropy(old, labels) - metrics.normalized_entropy(good, labels)
    assert numbers["gain"] == pytest.approx(gain)
    assert numbers["gain_lower"] == rule(verdict, "against_champion").value < gain < numbers["gain_upper"]


def test_a_worse_candidate_is_held_and_the_reason_is_one_line():
    verdict = asked(Gate(rules()), candidate=0.5, champion=1.0, n=5000)
    assert not verdict.passed
    assert [r.name for r in verdict.rules if not r.passed] == ["against_champion"]
    assert verdict.reason.startswith("held: proven worse than the champion: NE gain -0.")
    assert "on 5,000 examples (" in verdict.reason and "\n" not in verdict.reason


@pytest.mark.parametrize(("margin", "passed"), [(0.3, True), (0.01, False)])
def test_the_margin_forgives_what_is_proven_to_lie_within(margin, passed):
    verdict = asked(Gate(rules(margin=margin)), candidate=0.8, champion=1.0)
    assert -0.3 < rule(verdict, "against_champion").value < -0.01
    assert verdict.passed is passed
    assert rule(verdict, "against_champion").threshold == -margin


@pytest.mark.parametrize(("mode", "passed"), [("superior", False), ("non_inferior", True)])
def test_a_fresh_model_of_equal_quality_is_not_superior_but_not_inferior(mode, passed):
    verdict = asked(Gate(rules(mode=mode)), candidate=1.0, champion=0.999, n=3000)
    assert verdict.passed is passed
    assert ("not proven better than the champion" in verdict.reason) is (mode == "superior")


def test_superior_asks_for_proof_and_not_for_a_better_number():
    gate = Gate(rules(mode="superior"))
    lucky = asked(gate, candidate=1.0, champion=0.9, n=400)
    assert lucky.evidence["gain"] > 0 > lucky.evidence["gain_lower"] and not lucky.passed
    assert asked(gate, candidate=1.0, champion=0.5, n=4000).passed


def test_from_its_largest_age_on_a_version_falls_to_one_that_is_not_proven_worse():
    gate = Gate(rules(mode="superior", max_interval="1d", cool_down="0s"))
    gate.published(0)
    held = asked(gate, candidate=0.9, champion=0.9, slide_end=23 * HOUR)
    assert not held.passed
    verdict = gate.judge(question(slide_end=24 * HOUR))
    assert verdict.passed and "it is enough not to be proven worse, as the last version is 1d old" in verdict.reason
    assert rule(verdict, "against_champion").value == verdict.evidence["gain_upper"]
    worse = asked(gate, candidate=0.2, champion=1.0, n=5000, slide_end=25 * HOUR)
    assert not worse.passed and "proven worse" in worse.reason


def test_after_a_rollback_nothing_is_published_for_a_while():
    gate = Gate(rules(cool_down="2h", min_interval="0s"))
    gate.published(HOUR, rollback=True)
    early = asked(gate, slide_end=2 * HOUR)
    assert not early.passed and [r.name for r in early.rules if not r.passed] == ["cool_down"]
    assert "the last rollback was 1h ago" in early.reason
    assert gate.judge(question(slide_end=3 * HOUR)).passed


def test_the_auc_has_a_floor_where_one_is_set():
    gate = Gate(rules(min_auc=0.7))
    low = asked(gate, auc=0.69)
    assert not low.passed and "AUC 0.6900 is below 0.7" in low.reason
    assert not gate.judge(question()).passed  # an AUC that is not defined yet
    assert gate.judge(question(auc=0.7)).passed
    assert not rule(asked(Gate(rules())), "auc").asked


def test_absolute_rules_answer_for_the_last_span_and_the_proof_for_all_since_the_version():
    gate = Gate(rules(evidence_window="64m", calibration=(0.8, 1.25), margin=1.0))
    logits, labels = evidence(rate_shift=1.5)
    gate.observe(logits, logits, labels, HOUR)
    assert not gate.judge(question()).passed
    logits, labels = evidence(seed=1)
    gate.observe(logits, logits, labels, 2 * HOUR)
    assert gate.judge(question(slide_end=2 * HOUR)).evidence["n"] == 2000
    gate.observe(logits, logits, labels, 2 * HOUR + 5 * MINUTE)
    verdict = gate.judge(question(slide_end=2 * HOUR + 5 * MINUTE))
    assert verdict.passed and verdict.evidence["n"] == 2000 and verdict.evidence["since_version_n"] == 3000


@pytest.mark.parametrize(
    ("n", "changes", "name"),
    [(99, {}, "examples"), (1000, {"min_examples": 1001}, "examples"), (1000, {"min_positives": 500}, "positives")],
)
def test_too_little_evidence_holds(n, changes, name):
    verdict = asked(Gate(rules(**changes)), n=n)
    assert not verdict.passed and not rule(verdict, name).passed and rule(verdict, name).text in verdict.reason


def test_no_evidence_at_all_is_held_without_talk_of_nan():
    verdict = Gate(rules()).judge(question(parent=None))
    assert not verdict.passed and "nan" not in verdict.reason
    assert verdict.reason == (
        "held: 0 of 100 matured examples since the last version, 1d at most; "
        "0 of 10 positives since the last version, 1d at most"
    )


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_is_held(label):
    gate = Gate(rules(min_positives=1))
    gate.observe(np.zeros(500, np.float32), np.zeros(500, np.float32), np.full(500, label, np.float32), HOUR)
    assert not gate.judge(question()).passed


def test_weights_that_are_not_finite_hold_in_every_mode():
    for mode in ("superior", "non_inferior", "always"):
        verdict = asked(Gate(rules(mode=mode)), finite=False)
        assert not verdict.passed and "not finite" in verdict.reason


def test_scores_that_are_not_finite_hold():
    gate = Gate(rules())
    logits, labels = evidence()
    broken = np.where(np.arange(1000) < 3, np.nan, logits).astype(np.float32)
    broken[5] = np.inf
    gate.observe(broken, logits, labels, HOUR)
    verdict = gate.judge(question())
    assert not verdict.passed and "4 examples have no finite score" in verdict.reason


def test_a_first_version_is_held_against_the_base_rate():
    verdict = asked(Gate(rules(max_ne=1.0)), champion=None, parent=None)
    assert verdict.passed and not rule(verdict, "against_champion").asked
    assert rule(verdict, "against_base_rate").value < 1.0
    noisy = asked(Gate(rules(max_ne=1.0)), candidate=3.0, champion=None, parent=None)
    assert not noisy.passed and "(1 = the base rate)" in noisy.reason


def test_a_champion_that_can_no_longer_be_judged_does_not_block():
    verdict = asked(Gate(rules()), champion=None, parent=17)
    assert verdict.passed and "the champion scored 0 of 1,000 examples" in verdict.reason


def test_the_pair_is_taken_on_the_same_examples():
    gate = Gate(rules())
    logits, labels = evidence()
    half = np.where(np.arange(1000) < 500, np.nan, logits).astype(np.float32)
    gate.observe(logits, half, labels, HOUR)
    verdict = gate.judge(question())
    assert verdict.evidence["n"] == verdict.evidence["since_version_n"] == 500 and verdict.evidence["gain"] == 0.0
    assert rule(verdict, "against_champion").asked
    few = np.where(np.arange(1000) < 900, np.nan, logits).astype(np.float32)
    gate.observe(logits, few, labels, HOUR)
    assert not rule(gate.judge(question()), "against_champion").asked  # too few to speak for the rest


@pytest.mark.parametrize(("shift", "passed"), [(0.0, True), (1.2, False), (-1.2, False)])
def test_calibration_keeps_to_its_band(shift, passed):
    gate = Gate(rules(calibration=(0.8, 1.25), max_ne=9.0))
    logits, labels = evidence(rate_shift=shift)
    gate.observe(logits, logits, labels, HOUR)
    verdict = gate.judge(question())
    assert rule(verdict, "calibration").passed is passed is verdict.passed
    assert rule(verdict, "calibration").threshold == (0.8, 1.25)


def test_versions_keep_their_distance():
    gate = Gate(rules(min_interval="30m"))
    assert asked(gate, slide_end=10 * HOUR).passed
    gate.published(10 * HOUR)
    early = asked(gate, slide_end=10 * HOUR + 29 * MINUTE)
    assert not early.passed and "29m old" in early.reason
    assert gate.judge(question(slide_end=10 * HOUR + 30 * MINUTE)).passed


def test_input_drift_holds_for_a_while_and_no_longer():
    gate = Gate(rules(drift_hold="2h"))
    drifted = {"price": 0.6, "clicks": 0.1}
    assert asked(gate, psi={"price": 0.25}).passed
    for hours, passed in ((2, False), (3, False), (4, True), (5, True)):
        verdict = gate.judge(question(slide_end=hours * HOUR, psi=drifted))
        assert verdict.passed is passed
        assert "PSI 0.600 of price" in rule(verdict, "input_drift").text
        assert verdict.psi == drifted
    gate.published(5 * HOUR)
    assert not asked(gate, slide_end=6 * HOUR, psi=drifted).passed  # a new evidence period


def test_drift_alone_passes_after_its_hold_but_other_rules_still_hold():
    gate = Gate(rules(drift_hold="1h"))
    asked(gate, candidate=0.5, champion=1.0, slide_end=HOUR, psi={"x": 9.0})
    verdict = gate.judge(question(slide_end=3 * HOUR, psi={"x": 9.0}))
    assert rule(verdict, "input_drift").passed and not verdict.passed


def test_a_psi_that_is_no_number_holds():
    for psi in ({"x": float("nan")}, {"a": 0.1, "x": float("nan")}, {"x": float("inf")}):
        assert not asked(Gate(rules()), psi=psi).passed


def test_always_passes_once_there_is_an_example_and_says_so():
    gate = Gate(rules(mode="always"))
    assert not gate.judge(question(parent=None)).passed
    verdict = asked(gate, candidate=0.2, champion=1.0, n=3)
    assert verdict.passed and verdict.mode == "always" and "gate.mode is always" in verdict.reason
    assert not rule(verdict, "examples").passed  # recorded all the same


def test_due_by_event_time_and_not_before_there_is_evidence():
    gate = Gate(rules(interval="15m"))
    gate.observe(NOTHING, NOTHING, NOTHING, HOUR)
    assert not gate.due(HOUR)
    logits, labels = evidence(5)
    gate.observe(logits, logits, labels, HOUR)
    assert gate.due(HOUR)
    gate.judge(question(slide_end=HOUR))
    assert not gate.due(HOUR + 15 * MINUTE - 1) and gate.due(HOUR + 15 * MINUTE)


def test_publishing_starts_the_evidence_afresh():
    gate = Gate(rules())
    asked(gate)
    gate.published(HOUR)
    assert gate.judge(question(slide_end=9 * HOUR)).evidence["n"] == 0


def test_the_json_is_plain_sorted_and_finite():
    verdict = Gate(rules()).judge(question(psi={"b": 0.1, "a": np.float64(0.2)}, baselines={"prior": {"auc": np.nan}}))
    plain = verdict.to_json()
    text = json.dumps(plain, allow_nan=False)
    assert json.loads(text) == plain and list(plain) == sorted(plain) and list(plain["psi"]) == ["a", "b"]
    assert plain["baselines"] == {"prior": {"auc": None}} and plain["evidence"]["candidate_log_loss"] is None
    assert {rule["name"] for rule in plain["rules"]} == {
        "weights_finite", "scores_finite", "examples", "positives", "against_champion", "against_base_rate", "auc",
        "calibration", "min_interval", "cool_down", "input_drift",
    }  # fmt: skip


@pytest.mark.parametrize("cut", range(0, 12, 3))
def test_a_restored_gate_goes_on_bit_for_bit(cut):
    def run(gate, numbers):
        for number in numbers:
            logits, labels = evidence(60, 0.9, seed=number)
            end = number * 20 * MINUTE
            gate.observe(logits, evidence(60, 0.8, seed=number)[0], labels, end)
            if gate.due(end):
                verdict = gate.judge(question(slide_end=end, slide=number, psi={"x": number / 20}))
                yield json.dumps(verdict.to_json())
                if verdict.passed:
                    gate.published(end)

    config = rules(drift_hold="1h", min_interval="1h", calibration=(0.1, 9.0), margin=0.2, evidence_window="5h")
    whole, again = Gate(config), Gate(config)
    before = list(run(whole, range(1, cut + 1)))
    again.restore(whole.capture())
    rest = list(run(whole, range(cut + 1, 25)))
    assert rest == list(run(again, range(cut + 1, 25)))
    verdicts = [json.loads(text)["passed"] for text in before + rest]
    assert True in verdicts and False in verdicts


def test_an_override_passes_the_next_verdict_and_says_so():
    gate = Gate(rules())
    gate.override("campaign starts at noon")
    verdict = asked(gate, candidate=0.5, champion=1.0, n=5000)
    assert verdict.passed and verdict.override == "campaign starts at noon"
    assert verdict.reason.startswith("passed: by override (campaign starts at noon); by the rules: proven worse")
    again = gate.judge(question())
    assert not again.passed and again.override is None  # it was for one verdict


def test_an_override_can_be_cancelled_and_never_passes_what_cannot_be_served():
    gate = Gate(rules())
    gate.override("why not")
    assert not asked(gate, candidate=0.5, champion=1.0, n=5000, finite=False).passed
    assert gate.judge(question()).passed  # it was still waiting
    gate.override("why not")
    gate.override(None)
    assert not gate.judge(question()).passed


def test_an_override_of_what_passes_anyway_is_spent():
    gate = Gate(rules())
    gate.override("to be sure")
    verdict = asked(gate)
    assert verdict.passed and verdict.override is None
    gate.published(HOUR)
    assert not asked(gate, candidate=0.5, champion=1.0, n=5000, slide_end=5 * HOUR).passed


def test_a_candidate_proven_worse_is_degraded_and_a_restarted_one_begins_afresh():
    gate = Gate(rules())
    verdict = asked(gate, candidate=0.5, champion=1.0, n=5000)
    assert verdict.degraded and not asked(Gate(rules())).degraded
    gate.restarted(0)
    assert not gate.judge(question()).degraded and gate.judge(question()).evidence["since_version_n"] == 0


@pytest.mark.parametrize(
    ("floor", "text"),
    [
        ({"max_ne": 1.0}, "new_user=yes: NE 3.5063 is above 1 on 500 examples ("),
        ({"max_excess": 0.05}, "above the champion's (0.05 at most) on 500 examples ("),
        ({"calibration": [0.8, 1.25]}, "is not within 0.8 to 1.25 on 500 examples ("),
    ],
)
def test_a_slice_has_floors_of_its_own(floor, text):
    gate = Gate(rules(slices={"new_user=yes": floor}, margin=1.0))
    logits, labels = evidence(1000)
    inside = np.arange(1000) < 500
    spoilt = np.where(inside, 2.0, logits).astype(np.float32)
    gate.observe(spoilt, logits, labels, HOUR, {"new_user=yes": np.zeros(1000, bool)})
    assert not rule(gate.judge(question()), "slice new_user=yes").asked  # too few positives to say
    gate.observe(spoilt, logits, labels, HOUR, {"new_user=yes": inside})
    judged = rule(gate.judge(question()), "slice new_user=yes")
    assert not judged.passed and text in judged.text
    again = Gate(rules(slices={"new_user=yes": floor}))
    again.restore(gate.capture())
    assert rule(again.judge(question()), "slice new_user=yes") == judged
