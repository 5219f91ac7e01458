"""One line a record, in both formats; the progress line on a terminal only."""

import io
import json
import logging
import re
import threading
import warnings

import pytest

from stream_learner.observing.logs import Progress, configure_logging, switch_debug
from stream_learner.settings import Observing

UTC = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def logged():
    """Configures logging into a stream, and puts everything back afterwards."""
    root, names = logging.getLogger(), ("stream_learner", "kafka", "tensorflow", "absl", "h5py")
    before = root.level, list(root.handlers), {name: logging.getLogger(name).level for name in names}

    def configure(stream=None, **settings):
        stream = stream or io.StringIO()
        configure_logging(Observing(**settings), stream)
        return stream

    yield configure
    logging.captureWarnings(False)
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    for name, level in before[2].items():
        logging.getLogger(name).setLevel(level)


def failing():
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("a.b").exception("it\nfailed", extra={"fields": {"slide": 7}})


def test_json_lines_hold_fields_and_exceptions(logged):
    stream = logged(log_format="json")
    logging.getLogger("a").info("closed %d", 3, extra={"fields": {"events": 12, "loss": 0.5, "level": "mine"}})
    failing()
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert re.fullmatch(UTC, first.pop("time"))
    assert first == {"level": "info", "logger": "a", "message": "closed 3", "events": 12, "loss": 0.5}
    assert second["level"] == "error" and second["slide"] == 7 and second["message"] == "it\nfailed"
    assert second["exception"].endswith("ValueError: two\nlines")


def test_text_lines_are_one_line_each(logged):
    stream = logged(log_format="text")
    logging.getLogger("a").warning("closed", extra={"fields": {"events": 12, "late": 0}})
    failing()
    first, second = stream.getvalue().splitlines()
    assert re.fullmatch(rf"{UTC} WARNING a: closed events=12 late=0", first)
    assert re.match(rf"{UTC} ERROR   a\.b: it\\nfailed slide=7\\nTraceback", second)


def test_levels_and_noisy_libraries(logged):
    stream = logged(log_level="debug")
    logging.getLogger("stream_learner").debug("shown")
    logging.getLogger("kafka.client").info("hidden")
    logging.getLogger("tensorflow").warning("hidden")
    logging.getLogger("kafka.client").warning("shown")
    assert [line.rsplit(" ", 1)[1] for line in stream.getvalue().splitlines()] == ["shown", "shown"]
    quiet = logged(log_level="error")
    logging.getLogger("kafka.client").warning("hidden")
    logging.getLogger("stream_learner").warning("hidden")
    assert quiet.getvalue() == ""


def test_a_second_configuration_replaces_the_first(logged):
    old, new = logged(), logged()
    logging.getLogger("a").info("once")
    assert old.getvalue() == "" and len(new.getvalue().splitlines()) == 1


def test_warnings_become_records(logged):
    stream = logged()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("odd", UserWarning, stacklevel=1)
    assert "UserWarning: odd" in stream.getvalue() and len(stream.getvalue().splitlines()) == 1


def test_tensorflow_is_quietened_before_its_import_unless_told_otherwise(logged, monkeypatch):
    import os

    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    logged()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    logged()
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0"


def test_progress_is_drawn_on_a_terminal_and_not_too_often():
    times = iter([0.0, 2.0, 2.1, 4.0, 4.05])
    stream = Terminal()
    progress = Progress(1000, stream, clock=lambda: next(times))
    for records in (100, 150, 500):
        progress.update(records, "held")
    drawn = stream.getvalue().split("\r\x1b[2K")[1:]
    assert drawn == [
        " 10.0% of 1,000 records, 50/s, 18 s left · held",
        " 50.0% of 1,000 records, 125/s, 4 s left · held",
    ]
    progress.close()
    progress.close()
    assert stream.getvalue().endswith("\r\x1b[2K")
    progress.update(1000)
    assert stream.getvalue().count("\r") == 3


@pytest.mark.parametrize(("total", "stream"), [(None, Terminal()), (0, Terminal()), (1000, io.StringIO())])
def test_progress_is_silent_elsewhere(total, stream):
    progress = Progress(total, stream)
    progress.update(10)
    progress.close()
    assert stream.getvalue() == ""


def test_log_lines_take_the_place_of_the_progress_line(logged):
    stream = logged(Terminal())
    progress = Progress(1000, stream)
    progress.update(10)
    logging.getLogger("a").info("closed")
    assert re.search(r"left\r\x1b\[2K\S+ INFO    a: closed\n$", stream.getvalue())


def test_debug_is_switched_on_and_off_and_tells_where_every_thread_is(logged):
    stream = logged(log_level="info", log_format="text")
    ours, theirs = logging.getLogger("stream_learner.worker"), logging.getLogger("kafka.client")
    for message in ("before", "while on", "after"):
        ours.debug(message)
        theirs.debug("of a library")
        known = threading.enumerate()
        switch_debug(Observing(log_level="info"))
        for thread in threading.enumerate():
            if thread.name == "debug" and thread not in known:
                thread.join()
    text = stream.getvalue()
    assert "while on" in text and "before" not in text and "after" not in text and "of a library" not in text
    assert "debug is on until the next SIGUSR1" in text and "debug is off: info again" in text
    assert "thread MainThread:" in text and "test_logs.py" in text
    switch_debug(Observing(log_level="info"))
