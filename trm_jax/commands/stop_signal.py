# SPDX-License-Identifier: Apache-2.0
"""SIGTERM, SIGINT and SIGHUP, as a request to stop at the next step."""

import contextlib
import os
import signal
import threading
import time

from trm_jax.errors import EXIT_STOPPED

SAME_SIGNAL_S = 0.3  # `timeout` and terminals may deliver one signal twice


class StopSignal:
    """True once such a signal came; a second one ends the process at once.

    SIGHUP stays ignored if it was, as under nohup.

    Python runs signal handlers only between bytecodes, never during a long compilation
    or a blocked step. So a thread reads the signals from the wake-up pipe.
    """

    def __init__(self) -> None:
        self._received_at: float | None = None
        read, write = os.pipe()
        os.set_blocking(write, False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(read,), daemon=True).start()

    def __call__(self) -> bool:
        """Whether a signal has come."""
        return self._received_at is not None

    def _watch(self, pipe: int) -> None:
        while True:
            for number in os.read(pipe, 16):
                self._handle(signal.Signals(number).name)

    def _handle(self, name: str) -> None:
        now = time.monotonic()
        if self._received_at is None:
            self._received_at = now
            with contextlib.suppress(OSError):  # a closed pipe
                os.write(2, f"{name}: saving after this step\n".encode())
        elif now - self._received_at > SAME_SIGNAL_S:
            with contextlib.suppress(OSError):
                os.write(2, f"second signal ({name}): leaving at once\n".encode())
            os._exit(EXIT_STOPPED)
