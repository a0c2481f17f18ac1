# SPDX-License-Identifier: Apache-2.0
import io
import logging

import pytest

from trm_jax.commands.progress import ProgressBar, clock_time


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_nothing_is_drawn_where_there_is_no_terminal():
    stream = io.StringIO()
    bar = ProgressBar(stream)
    for done in range(5):
        bar.update(done, 4, "steps")
    bar.clear()
    assert stream.getvalue() == ""


def test_a_terminal_shows_share_rate_and_what_is_left():
    stream = Terminal()
    ProgressBar(stream).update(4, 4, "steps")
    shown = stream.getvalue()
    assert shown.startswith("\r")
    assert f"[{'#' * 30}] 4/4 steps" in shown
    assert "\n" not in shown


def test_a_terminal_that_has_gone_is_left_alone():
    class Gone(Terminal):
        def flush(self):
            raise OSError("Input/output error")

    stream = Gone()
    bar = ProgressBar(stream)
    for done in range(1, 5):
        bar.update(done, 4, "steps")
        bar.clear()
    assert stream.getvalue().count("steps") == 1


def test_log_lines_stand_above_the_bar():
    stream = Terminal()
    bar = ProgressBar(stream)
    logger = logging.Logger("test")
    logger.addHandler(bar.handler())
    bar.update(4, 4, "steps")
    logger.warning("a line")
    assert stream.getvalue().endswith("\r\033[Ka line\n")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.0, "0:00:00"), (61.4, "0:01:01"), (36_000.0, "10:00:00")]
)
def test_durations_are_hours_minutes_seconds(seconds, shown):
    assert clock_time(seconds) == shown


def test_no_silence_is_long_where_there_is_no_terminal(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "trm_jax")
    now = [0.0]
    monkeypatch.setattr("trm_jax.commands.progress.time.monotonic", lambda: now[0])
    bar = ProgressBar(io.StringIO())
    for now[0], done in ((4.0, 1), (11.0, 2), (15.0, 3), (22.0, 4)):
        bar.update(done, 9, "steps")
    assert caplog.messages == ["2/9 steps", "4/9 steps"]
    # A log line breaks the silence too, so the next update logs nothing.
    log = logging.getLogger("a run")
    log.addHandler(bar.handler())
    log.warning("saved")
    now[0] = 31.0
    bar.update(5, 9, "steps")
    assert len(caplog.messages) == 3
