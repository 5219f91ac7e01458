"""The canary: what fails a new version, what does not, and that it goes on after a restore."""

import json

import numpy as np
import pytest

from stream_learner import settings
from stream_learner.judging.canary import Canary

MINUTE = 60_000_000
HOUR = 60 * MINUTE


def watched(**changes):
    canary = Canary(settings.Canary(**{"duration": settings.Duration(2 * HOUR), "min_examples": 100, **changes}))
    canary.begin(20, 10, HOUR)
    return canary


def views(n=400, seed=0, noise=(0.1, 0.1), shift=0.0):
    """The new version's and the previous one's logits, and labels."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(-2.5, 1, n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    new, previous = (np.float32(truth + rng.normal(0, scale, n)) for scale in noise)
    return np.float32(new + shift), previous, labels


def test_an_equal_version_is_kept_after_its_time_and_not_before():
    canary = watched()
    for step in range(1, 12):
        new, previous, labels = views(seed=step)
        canary.arrived(new, previous)
        canary.matured(new, previous, labels)
        assert canary.judge(step, HOUR + step * 10 * MINUTE) is None
    verdict = canary.judge(12, 3 * HOUR)
    assert verdict.passed and verdict.reason.startswith(
        "canary passed: version 20 is kept after 2h: its mean prediction"
    )
    assert json.loads(json.dumps(verdict.to_json(), allow_nan=False))["kind"] == "canary"


def test_one_score_that_is_not_finite_fails_it_at_once():
    canary = watched()
    new, previous, _ = views()
    new[7] = np.nan
    canary.arrived(new, previous)
    verdict = canary.judge(1, HOUR + MINUTE)
    assert not verdict.passed and "1 of 400 arrived examples have no finite score" in verdict.reason
    assert verdict.reason.startswith("canary failed: version 10 is served again instead of 20: ")


@pytest.mark.parametrize(("shift", "passed"), [(0.3, True), (-0.3, True), (1.2, False), (-1.2, False)])
def test_predictions_may_shift_so_far(shift, passed):
    canary = watched()
    new, previous, _ = views(n=99, shift=shift)
    canary.arrived(new, previous)
    assert canary.judge(1, HOUR + MINUTE) is None  # too few to say
    canary.arrived(*views(shift=shift)[:2])
    verdict = canary.judge(2, HOUR + 2 * MINUTE)
    assert (verdict is None) is passed
    if not passed:
        assert [rule.name for rule in verdict.rules if not rule.passed] == ["prediction_shift"]


def test_a_proven_loss_fails_it_as_labels_mature():
    canary = watched()
    verdicts = []
    for step in range(1, 40):
        canary.matured(*views(n=300, seed=step, noise=(0.9, 0.1)))
        verdicts.append(canary.judge(step, HOUR + step * MINUTE))
        if verdicts[-1] is not None:
            break
    assert len(verdicts) > 1 and not verdicts[-1].passed
    assert "proven worse: NE gain -0." in verdicts[-1].reason


def test_with_nobody_to_watch_it_says_nothing():
    canary = watched()
    canary.end()
    canary.arrived(*views(shift=9.0)[:2])
    assert canary.judge(1, 9 * HOUR) is None
    idle = Canary(settings.Canary(duration=None))
    assert idle.judge(1, HOUR) is None


def test_a_restored_canary_goes_on_bit_for_bit():
    one, other = watched(), watched()
    new, previous, labels = views()
    one.arrived(new, previous)
    one.matured(new, previous, labels)
    other.restore(one.capture())
    for canary in (one, other):
        canary.arrived(*views(seed=1)[:2])
        canary.matured(*views(seed=1))
    assert one.judge(9, 9 * HOUR) == other.judge(9, 9 * HOUR)
