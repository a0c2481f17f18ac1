# SPDX-License-Identifier: Apache-2.0
"""One writer per workdir: a lock on workdir/lock.json, which also names its holder.

The kernel releases the lock when the process ends, however it ends.
"""

import contextlib
import fcntl
import io
import json
import os
import socket
import time
from pathlib import Path

from trm_jax.errors import ConfigError
from trm_jax.runtime import processes


class WorkdirLock:
    """The exclusive right to write in a workdir, held during a `with` block.

    Process 0 holds the lock for all processes of the run.
    """

    def __init__(self, workdir: str | Path) -> None:
        self.path = Path(workdir).absolute() / "lock.json"
        self._file: io.FileIO | None = None

    def __enter__(self) -> "WorkdirLock":
        """Take the lock for all processes. Raises ConfigError as `acquire` does."""
        processes.on_first(self.acquire, "lock of the workdir")
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Lock the file; raise ConfigError if another run holds it or locking fails."""
        file = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("ab", buffering=0)
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": since}
            file.truncate(0)
            file.write(json.dumps(holder).encode() + b"\n")
        except OSError as error:
            if file:
                file.close()
            where = error.filename or f"{self.path} cannot be locked"
            reason = f"{where}: {error.strerror}"
            if isinstance(error, BlockingIOError):
                reason = f"{self.path}: {self._holder()} is writing in this workdir. "
                reason += "Wait until that run ends, or use another --workdir."
            raise ConfigError(reason) from error
        self._file = file

    def look(self) -> None:
        """Raise ConfigError if another run holds the lock now, without keeping it."""
        if self.path.exists():
            self.acquire()
            self.release()

    def release(self) -> None:
        """Release the lock, and remove the holder's name from the file."""
        file, self._file = self._file, None
        if file is not None:
            with file, contextlib.suppress(OSError):
                os.truncate(file.fileno(), 0)  # no holder

    def check(self) -> None:
        """Raise ConfigError if the lock file was removed or replaced.

        A run calls this before each save, since another run may hold the new file.
        """
        if self._file is None:
            return
        with contextlib.suppress(OSError):  # unreachable: then the save fails too
            mine = os.fstat(self._file.fileno())
            if not self.path.exists() or not os.path.samestat(self.path.stat(), mine):
                raise ConfigError(
                    f"{self.path}: this run has lost the workdir, for somebody removed "
                    "or replaced the file; it ends without saving and keeps what it "
                    "saved before"
                )

    def _holder(self) -> str:
        try:
            note = json.loads(self.path.read_text(encoding="utf-8"))
            return f"process {note['pid']} on {note['host']}, since {note['since']},"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"
