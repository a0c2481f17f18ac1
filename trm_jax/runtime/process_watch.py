# SPDX-License-Identifier: Apache-2.0
"""What ends all processes of a run when one is dead, hangs, or has failed.

Threads of each process listen to the others and meet them every few seconds, also while
the process is blocked in a collective. When not all come, they say what the process was
doing and end it with code 75: the run can be resumed.
"""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NoReturn

EXIT_RESUMABLE = 75
BEAT_S = 2.0  # between two meetings
LOST_S = 30.0  # who does not come to a meeting for so long is lost
PART_S = 2.0  # for all to hear why the run ends
EXIT_S = PART_S + 4  # for that, and for `last_act`
_FOREVER_MS = 10**9
_ENDED, _BEAT, _PART = "trm_jax/ended", "trm_jax/beat", "trm_jax/part"


class ProcessWatch:
    """Watches the other processes from its creation until `close`."""

    def __init__(
        self, client: Any, address: str, process_id: int, num_processes: int
    ) -> None:
        self.phase = "start"  # what this process is doing
        self.name = f"process {process_id} of {num_processes}"
        self.last_act: Callable[[], None] = lambda: None  # before it ends the process
        self._client, self._process_id = client, process_id
        self._leaving = threading.Lock()  # taken by the thread with the last word
        host, _, port = address.rpartition(":")
        self._coordinator = host.strip("[]"), int(port)
        for watch in (self._listen, self._meet, self._knock):
            threading.Thread(target=watch, daemon=True).start()

    def close(self) -> None:
        """Say nothing more, as all processes are about to end."""
        self._leaving.acquire()

    def end_all(self, code: int, message: str) -> NoReturn:
        """End this process and all others with `code`; each shows the message."""
        self._leaving.acquire()
        _tell(f"{self.name}: {message}" if self._process_id else message)
        _exit_later(code)
        with contextlib.suppress(RuntimeError):  # another was first, or all is lost
            told = f"{code} {self._process_id} {message}"
            self._client.key_value_set(_ENDED, told)
        self._part(code)

    def lose(self) -> NoReturn:
        """End this process: another is lost."""
        self._leaving.acquire()
        _tell(
            f"error: {self.name} lost another process during {self.phase}; "
            "run again to resume"
        )
        self._leave(EXIT_RESUMABLE)

    def _listen(self) -> None:
        """Wait for a last word of another process."""
        while True:
            try:
                self._follow(self._client.blocking_key_value_get(_ENDED, _FOREVER_MS))
            except RuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    self.lose()

    def _meet(self) -> None:
        while True:
            time.sleep(BEAT_S)
            # The coordinator keeps the limit of the barrier, and may itself hang.
            limit = start_timer(LOST_S + BEAT_S, self.lose)
            try:
                self._client.wait_at_barrier(_BEAT, int(LOST_S * 1000))
            except RuntimeError:
                self.lose()
            limit.cancel()

    def _knock(self) -> None:
        """See at once that process 0 has ended: JAX's own calls then hang or abort."""
        while self._process_id:
            time.sleep(BEAT_S)
            try:
                socket.create_connection(self._coordinator, timeout=LOST_S).close()
            except ConnectionError:
                self.lose()
            except OSError:
                pass  # slow, or its host has gone: then `_meet` ends

    def _follow(self, ended: str) -> NoReturn:
        self._leaving.acquire()
        code, process_id, message = ended.split(" ", 2)
        _tell(f"{self.name} ends, as process {process_id} does: {message}")
        _exit_later(int(code))
        self._part(int(code))

    def _part(self, code: int) -> NoReturn:
        """Leave once all have heard of it: process 0 takes the coordinator along."""
        with contextlib.suppress(RuntimeError):  # who is gone need not hear of it
            self._client.wait_at_barrier(_PART, int(PART_S * 1000))
        if self._process_id == 0:
            time.sleep(1)
        self._leave(code)

    def _leave(self, code: int) -> NoReturn:
        _exit_later(code)
        with contextlib.suppress(Exception):  # whatever it is, the process ends
            self.last_act()
        os._exit(code)


def hold_aborts() -> None:
    """Hold an abort of this process for 6 s, for a thread to say what happened.

    JAX aborts as soon as it loses the coordinator. The handler is libc's own sleep,
    called with the number of SIGABRT: safe in any thread, whatever has gone wrong.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal.restype = ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))


def start_timer(
    seconds: float, action: Callable[..., None], *args: Any
) -> threading.Timer:
    """Call `action` in a thread after `seconds`, unless cancelled or ended before."""
    timer = threading.Timer(seconds, action, args)
    timer.daemon = True
    timer.start()
    return timer


def _exit_later(code: int) -> None:
    start_timer(EXIT_S, os._exit, code)  # a coordinator that hangs answers nothing


def _tell(message: str) -> None:
    with contextlib.suppress(OSError):  # a closed pipe
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        os.write(2, f"{message}\n".encode())
