"""Health is progress, on a clock that tests turn by hand."""

from stream_learner.observing.health import Health
from stream_learner.settings import Duration


class Clock:
    """Monotonic seconds, moved by hand."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


def health(after="5m"):
    clock = Clock()
    return Health(Duration.parse(after), clock), clock


def test_alive_from_the_start_ready_only_when_running():
    seen, _ = health()
    for change, ready in (
        (lambda: seen.starting("config"), False),
        (lambda: seen.starting("restoring"), False),
        (seen.running, True),
        (seen.stopping, False),
    ):
        change()
        assert seen.live()[0] and seen.ready()[0] is ready
    assert seen.live()[1]["state"] == "stopping"


def test_a_loop_that_does_not_move_is_dead_until_it_moves():
    seen, clock = health("1m")
    seen.running()
    clock.now += 60
    assert seen.live()[0] and seen.ready()[0]
    clock.now += 1
    alive, reasons = seen.live()
    assert not alive and not seen.ready()[0]
    assert reasons["reason"] == "the loop has not moved for 61 s in reading"
    assert reasons["seconds_since_beat"] == 61.0
    seen.beat("learn")
    assert seen.live()[0] and seen.live()[1]["stage"] == "learn" and seen.live()[1]["reason"] == ""


def test_stuck_while_restoring_shows_too():
    seen, clock = health("1m")
    seen.starting("restoring")
    clock.now += 61
    assert not seen.live()[0] and "in restoring" in seen.live()[1]["reason"]


def test_failed_is_final_and_keeps_its_reason():
    seen, _ = health()
    seen.running()
    seen.failed("the snapshot is torn")
    for change in (lambda: seen.beat("reading"), seen.stopping, seen.running):
        change()
        alive, reasons = seen.live()
        assert not alive and reasons["state"] == "failed" and reasons["reason"] == "the snapshot is torn"
        assert not seen.ready()[0]
