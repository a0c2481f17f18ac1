# SPDX-License-Identifier: Apache-2.0
"""One save in the background, whose outcome all processes learn.

Arrays are written to a draft folder. Once all of it is on the disk, one rename gives it
the name of its step. So a folder with the name of a step is never half written.
"""

import asyncio
import errno
import glob
import logging
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from trm_jax.errors import CheckpointError, error_of
from trm_jax.files import sync, write_whole
from trm_jax.runtime import manifest, processes
from trm_jax.types import TrainState

log = logging.getLogger(__name__)

STATE, MANIFEST = "state", "manifest/metadata"  # in the folder of a step
DRAFT = ".tmp"  # marks the name of a folder that is not yet a step or no longer one
_CHUNK = 2**24  # bytes: the chunks of a large array are compressed in parallel
_GIB = 2**30


class OrbaxPath(type(epath.Path())):  # type: ignore[misc]
    """A path for orbax, which otherwise reads `[` in a folder's name as a pattern."""

    def glob(self, pattern: str) -> Any:
        """Match the pattern inside the folder, whatever the folder is called."""
        return map(type(self), glob.glob(os.path.join(glob.escape(self), pattern)))


class BackgroundSave(threading.Thread):
    """Write a state into a draft and commit it; `error` is final once the thread ends.

    Once the constructor returns, the state is on the host and may be donated. The
    manifest also holds `records`. With `keep` = 0 the draft is removed at the end.
    """

    def __init__(
        self,
        draft: Path,
        state: TrainState,
        handler: Any,
        keep: int | None,
        records: dict[str, Any],
    ) -> None:
        super().__init__(daemon=True)
        self.step = int(state.step)
        self.error: Exception | None = None
        self._draft, self._handler, self._keep = draft, handler, keep
        self._manifest = manifest.begin(state, records)
        self._writes: list[Any] = []
        self._start_error = error_of(lambda: self._start_writing(state))
        self.start()

    def _start_writing(self, state: TrainState) -> None:
        chunks = jax.tree.map(lambda _: ocp.SaveArgs(chunk_byte_size=_CHUNK), state)
        args = ocp.args.StandardSave(state, save_args=chunks)
        folder = OrbaxPath(self._draft / STATE)
        write = self._handler.async_save(folder, args=args)
        with ThreadPoolExecutor(1) as pool:  # in a notebook, this thread has a loop
            self._writes += pool.submit(asyncio.run, write).result() or []

    def run(self) -> None:
        """Commit the draft once all processes have written their parts."""
        try:
            error = self._start_error or error_of(self._end_writing)
            processes.agree(error, f"writing of step {self.step}")
            processes.on_first(self._commit, f"commit of step {self.step}")
        except Exception as error:  # noqa: BLE001  `Checkpoints` raises it
            self.error = error
            if processes.is_first():
                shutil.rmtree(self._draft, ignore_errors=True)

    def _end_writing(self) -> None:
        while self._writes:  # each write holds a copy of its arrays
            self._writes.pop().result()

    def _commit(self) -> None:
        folder, path = self._draft / STATE, self._draft / MANIFEST
        self._handler.finalize(OrbaxPath(folder))
        path.parent.mkdir()
        write_whole(path, self._manifest(folder), CheckpointError)
        for part in (self._draft, *self._draft.rglob("*")):
            sync(part)  # orbax does not flush its small files to the disk
            if not part.is_dir() and not part.stat().st_size:
                raise OSError(errno.EIO, "not all that was written is there", str(part))
        if read_step(folder) != self.step:
            raise OSError(errno.EIO, "it does not read back as written", str(folder))
        if self._keep == 0:
            shutil.rmtree(self._draft)
            return
        self._draft.rename(self._draft.with_name(str(self.step)))
        sync(self._draft.parent)
        if self._keep:
            remove_old(self._draft.parent, self._keep)


def read_step(folder: Path) -> int:
    """The step of the state that orbax finds in `folder`; nothing else is read."""
    how = {"step": ocp.RestoreArgs(restore_type=np.ndarray)}
    args = ocp.args.PyTreeRestore({"step": 0}, restore_args=how, partial_restore=True)
    with closing(ocp.PyTreeCheckpointHandler()) as reader:
        return int(reader.restore(OrbaxPath(folder), args=args)["step"])


def steps_in(root: Path) -> list[int]:
    """The steps saved in this folder, ascending; some may be damaged."""
    names = [path.name for path in root.iterdir()]
    return sorted(int(n) for n in names if n.isdecimal() and n == str(int(n)))


def make_draft(draft: Path, size: int) -> None:
    """Create the draft for a state of `size` bytes, if twice as many are free."""
    remove_drafts(draft.parent)
    free, needed = shutil.disk_usage(draft.parent).free, 2 * size
    if free < needed:
        reason = f"{free / _GIB:.3g} GiB are free, a save needs {needed / _GIB:.3g}"
        raise OSError(errno.ENOSPC, reason, str(draft.parent))
    (draft / STATE).mkdir(parents=True)


def remove_drafts(root: Path) -> None:
    """Create the root, and remove what failed or killed saves left in it."""
    try:
        os.fspath(root).encode()
    except UnicodeEncodeError as error:  # orbax would fail at the first save
        name = ascii(os.fspath(root))
        raise CheckpointError(f"{name}: expected a folder name in UTF-8") from error
    root.mkdir(parents=True, exist_ok=True)
    for draft in root.glob(f"*{DRAFT}-*"):
        shutil.rmtree(draft, ignore_errors=True)


def remove_old(root: Path, keep: int) -> None:
    """Remove all but the newest `keep` steps; log a warning if that fails."""
    try:
        for step in steps_in(root)[:-keep]:
            doomed = root / f"{step}{DRAFT}-old"  # so that no step is half removed
            (root / str(step)).rename(doomed)
            shutil.rmtree(doomed)
    except OSError as error:
        log.warning("old checkpoints were not removed: %s", error)
