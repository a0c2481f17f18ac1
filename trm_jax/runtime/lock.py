# SPDX-License-Identifier: Apache-2.0
"""One writer per workdir: lock.json names the process that has it.

Made for shared file systems: exclusive links, renames and the times of files, by the
clock that sets those times. A lock is replaced or removed only by who has created
`lock.json.after-<its token>`, itself a lock of this kind, so that of many that find a
stale lock one takes it.
"""

import contextlib
import json
import logging
import os
import re
import socket
import subprocess
import threading
import time
import uuid
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from trm_jax.errors import ConfigError
from trm_jax.files import write_whole
from trm_jax.runtime import processes

log = logging.getLogger(__name__)

BEAT_S = 30.0  # between two signs of life
DOUBTFUL_S = 75.0  # who gives none for so long, on another machine, may be dead
STALE_S = 600.0  # and is, after so long
_PROC = Path("/proc")
_TOKEN = re.compile("[0-9a-f]{32}")  # it becomes part of a file name


@dataclass(frozen=True)
class _Holder:
    token: str
    host: str
    machine: str  # whose process numbers `pid` is one of
    pid: int
    started: str
    since: str

    def __str__(self) -> str:
        if not self.pid:
            return "an unknown process (the file is damaged)"
        return f"process {self.pid} on {self.host}, since {self.since}"

    def is_here(self) -> bool:
        return self.machine == _machine()

    def is_gone(self, silent_s: float) -> bool:
        if self.is_here():
            return not _is_running(self.pid, self.started)
        return silent_s > STALE_S


class WorkdirLock:
    """The right to write in a workdir, for a `with` block.

    Of several processes the first has it for all.
    """

    def __init__(self, workdir: str | Path) -> None:
        self.path = Path(workdir).absolute() / "lock.json"
        self._token = uuid.uuid4().hex
        self._new_folders: list[Path] = []
        self._stop = threading.Event()
        self._beats: threading.Thread | None = None

    def __enter__(self) -> "WorkdirLock":
        """Take it.

        Raises:
          ConfigError: another run has it, or nothing can be written.
          ProcessError: a run on another machine had it, which may be dead: try again.
        """
        if processes.is_first():
            try:
                self._acquire()
            except OSError as error:
                where = error.filename or self.path
                raise ConfigError(f"{where}: {error.strerror}") from error
            finally:
                if not self._beats:
                    self._remove_new_folders()
        try:
            processes.barrier("lock of the workdir")
        except processes.ProcessError:
            self.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def check(self) -> None:
        """Raise ConfigError if another took the lock; to be called before each save."""
        if not self._beats:
            return
        self._beat()
        try:
            found = _read(self.path)
        except OSError as error:  # out of reach, as the save will be
            log.warning("warning: %s: %s", self.path, error.strerror)
            return
        if found is None or found[0].token != self._token:
            how = f"{found[0]} has it now" if found else "someone removed the file"
            raise ConfigError(
                f"{self.path}: this run has lost the workdir ({how}) and ends without "
                "saving; what it saved before is kept"
            )

    def release(self) -> None:
        """Let another run have it; does nothing where another already has."""
        if not self._beats:
            return
        self._stop.set()
        self._beats.join()
        self._beats = None
        self._file.close()
        guard = _guard(self.path, self._token)
        with contextlib.suppress(OSError):  # lost, or out of reach: it becomes stale
            os.link(self.path, guard)
            found = _read(guard)
            if found and found[0].token == self._token:
                self.path.unlink()
            guard.unlink()
        self._remove_new_folders()

    def _acquire(self) -> None:
        folder = self.path.parent
        self._new_folders = [f for f in (folder, *folder.parents) if not f.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f"{self.path.name}.draft-{self._token}")
        pid, since = os.getpid(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        started, host = _started(pid) or "", socket.gethostname()
        me = _Holder(self._token, host, _machine(), pid, started, since)
        try:
            write_whole(draft, json.dumps(asdict(me)) + "\n", ConfigError)
            self._take(self.path, draft)
            self._file = draft.open("rb")
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
        self._beats = threading.Thread(target=self._keep_beating, daemon=True)
        self._beats.start()

    def _take(self, path: Path, draft: Path) -> None:
        """Link the draft to `path`, over the lock there if that is stale."""
        while True:
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
            found = _read(path)
            if found is None:
                continue
            holder, beat = found
            if holder.token == self._token:
                return
            os.utime(draft)  # what the clock of the file system says now
            silent_s = draft.stat().st_mtime - beat
            if not holder.is_gone(silent_s):
                doubtful = silent_s > DOUBTFUL_S and not holder.is_here()
                error = processes.ProcessError if doubtful else ConfigError
                raise error(self._refusal(holder, silent_s))
            guard = _guard(path, holder.token)
            self._take(guard, draft)
            try:
                if _read(path) == found:  # no beat since, and the same holder
                    os.replace(guard, path)
                    text = "warning: %s taken over from %s; silent for %.0f s"
                    log.warning(text, path.name, holder, silent_s)
            except FileNotFoundError:  # the guard: this process was taken for dead
                continue
            finally:
                guard.unlink(missing_ok=True)

    def _refusal(self, holder: _Holder, silent_s: float) -> str:
        remedy = "Wait until that run ends, or use another --workdir."
        if not holder.is_here():
            wait_s = STALE_S - silent_s
            remedy += f" If it is dead, remove the file or try again in {wait_s:.0f} s."
        return (
            f"{self.path}: {holder}, is writing in this workdir; its last sign of life "
            f"was {silent_s:.0f} s ago. {remedy}"
        )

    def _keep_beating(self) -> None:
        while not self._stop.wait(BEAT_S):
            self._beat()

    def _beat(self) -> None:
        # By the open file: never that of another which took the lock over.
        with contextlib.suppress(OSError):  # out of reach for now; `check` tells
            os.utime(self._file.fileno())

    def _remove_new_folders(self) -> None:  # of a run that was refused for its config
        for folder in self._new_folders:
            with contextlib.suppress(OSError):
                folder.rmdir()


def _guard(path: Path, token: str) -> Path:
    return path.with_name(f"{path.name}.after-{token}")


def _read(path: Path) -> tuple[_Holder, float] | None:
    """Who has it, and the time of its last beat; None where there is no such file."""
    data = b""
    try:
        with path.open("rb") as file:
            info = os.fstat(file.fileno())
            data = file.read()
    except FileNotFoundError:
        if not path.is_symlink():
            return None
        info = path.lstat()  # it leads nowhere
    except OSError:
        info = path.stat()
    try:
        holder = _Holder(**json.loads(data))
        typed = all(type(getattr(holder, f.name)) is f.type for f in fields(holder))
        if not (typed and _TOKEN.fullmatch(holder.token) and 0 < holder.pid < 2**31):
            raise ValueError("not a lock")
    except (ValueError, TypeError):
        holder = _Holder(f"{info.st_ino}-{info.st_mtime_ns}", "", "", 0, "", "")
    return holder, info.st_mtime


def _machine() -> str:
    """Of two containers with one host name, each has its own process numbers."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink(_PROC / 'self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _is_running(pid: int, started: str) -> bool:
    with contextlib.suppress(PermissionError):  # of another user
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return not started or _started(pid) in (started, None)


def _started(pid: int) -> str | None:
    """When the process started, in any unit; empty if it has ended, None if unknown."""
    try:
        if (_PROC / "self").exists():
            stat = (_PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()
            state, start = stat[0], stat[19]
        else:
            line = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
            out = subprocess.run(line, capture_output=True, text=True, check=False)
            state, _, start = out.stdout.strip().partition(" ")
    except OSError:
        return None
    return "" if state[:1] in ("Z", "X") else start.strip() or None
