# SPDX-License-Identifier: Apache-2.0
"""How far a run is: a bar on a terminal, lines elsewhere."""

import io
import logging
import math
import sys
import time
from typing import Any

from trm_jax.training.metrics import clock_time

WIDTH = 30
REDRAW_S = 0.2
LINE_S = 5.0  # seconds between progress lines where there is no terminal
SILENCE_S = 10.0  # after so long without a log line, one shows the progress
log = logging.getLogger(__name__)


class ProgressBar:
    """One line that is redrawn in place and makes way for log lines.

    Attach it to the loggers with `handler`; it draws only if `stream` is a terminal.
    """

    def __init__(self, stream: io.TextIOBase | None = None) -> None:
        self._stream: Any = stream or sys.stdout
        self.live = self._stream.isatty()
        self._drawn = False
        self._last = -REDRAW_S
        self._last_line = time.monotonic()
        self._start: tuple[float, int] | None = None
        self._unit = ""

    def update(self, done: int, total: int, unit: str) -> None:
        """Show `done` of `total`; the rate counts from the first call with a unit."""
        now = time.monotonic()
        if self._start is None or done < self._start[1] or unit != self._unit:
            self._start, self._unit = (now, done), unit
        if not self.live and now - self._last_line > SILENCE_S:
            self._last_line = now
            log.info("%d/%d %s", done, total, unit)
        if not self.live or (now - self._last < REDRAW_S and done < total):
            return
        self._last = now
        start, first = self._start
        rate = (done - first) / max(now - start, 1e-9)
        bar = ("#" * (WIDTH * done // max(total, 1))).ljust(WIDTH, ".")
        left = clock_time((total - done) / rate) if rate else "?"
        self._write(f"\r\033[K[{bar}] {done}/{total} {unit}  {rate:.1f}/s  ETA {left}")
        self._drawn = self.live

    def clear(self) -> None:
        """Remove the line and forget the rate; the next update starts anew."""
        self.make_way()
        self._start = None

    def make_way(self) -> None:
        """Remove the line for a moment."""
        if self._drawn:
            self._drawn = False
            self._write("\r\033[K")

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:  # the terminal is gone, but the run goes on
            self.live = False

    def handler(self) -> logging.Handler:
        """A handler that writes log lines above the bar."""
        handler = logging.StreamHandler(self._stream)
        handler.setFormatter(logging.Formatter("%(message)s"))
        handler.addFilter(self._is_shown)
        return handler

    def _is_shown(self, _: logging.LogRecord) -> bool:
        self._last_line = time.monotonic()
        self.make_way()
        return True


class RowProgress:
    """Rows done, their rate and the time left: a bar, or a line now and then."""

    def __init__(self, bar: ProgressBar, done: int, total: int) -> None:
        self._bar, self._start, self._total = bar, done, total
        self._started = self._last_line = time.monotonic()

    def __call__(self, done: int) -> None:
        """Show the progress."""
        if self._bar.live:
            self._bar.update(done, self._total, "rows")
            return
        now, finished = time.monotonic(), done == self._total
        if now - self._last_line > LINE_S or finished:
            self._last_line = now
            rate = self.rate(done) or math.inf
            left = clock_time((self._total - done) / rate)
            log.info("%d/%d rows  %.1f/s  ETA %s", done, self._total, rate, left)

    def rate(self, done: int) -> float | None:
        """Rows per second of this process; None if nothing was left to do."""
        passed = max(time.monotonic() - self._started, 1e-9)
        return (done - self._start) / passed if done > self._start else None
