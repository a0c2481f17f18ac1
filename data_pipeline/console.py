# SPDX-License-Identifier: Apache-2.0
"""Standard output of commands, which may be closed, full or unread, and progress."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from .errors import DataError

QUIET_S = 1.0  # seconds before progress is shown
REDRAW_S = 0.2


def open_missing() -> None:
    """Open the standard streams that are closed; what is written to them is lost.

    Otherwise the next files that are opened would take their place.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  kept open


def say(text: str) -> None:
    """Write text to stdout at once; if its reader has left, do nothing.

    Raises DataError if stdout cannot be written for another reason.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # Python would try again when it ends, and exit with 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            problem = f"standard output cannot be written: {error.strerror}"
            raise DataError(problem) from None


@contextlib.contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Gives a function that shows a number done on stderr, if that is a terminal.

    The line appears after a second, is redrawn in place and is removed at the end.
    """
    due, drawn = time.monotonic() + QUIET_S, False

    def show(done: int) -> None:
        nonlocal due, drawn
        if time.monotonic() < due or not sys.stderr.isatty():
            return
        due, drawn = time.monotonic() + REDRAW_S, True
        with contextlib.suppress(OSError):  # the terminal may be gone
            sys.stderr.write(f"\r\033[K{done:,} of {total:,} {what}")
            sys.stderr.flush()

    try:
        yield show
    finally:
        if drawn:
            with contextlib.suppress(OSError):
                sys.stderr.write("\r\033[K")


def run(main: Callable[[list[str]], int]) -> NoReturn:
    """Exit with the code of `main`, or with 2 and one line if it raises DataError.

    `main` gets the arguments of the command line.
    """
    open_missing()
    for stream in (sys.stdout, sys.stderr):  # a terminal may lack characters of a path
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        code = main(sys.argv[1:])
    except DataError as error:
        sys.stderr.write(f"error: {error}\n")
        code = 2
    sys.exit(code)
