# SPDX-License-Identifier: Apache-2.0
"""A save beside the training, and how several processes agree on what became of it."""

import asyncio
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath  # the only paths that orbax writes to

from trm_jax.errors import CheckpointError
from trm_jax.runtime import manifest, processes
from trm_jax.runtime.step_folders import STATE, StepFolders
from trm_jax.types import TrainState

_CHUNK = 2**24  # bytes: of a large array many are packed, and unpacked, side by side
OTHERS_FAILED = "another process failed; its message says why"


class BackgroundSave(threading.Thread):
    """One step on its way to the disk; `error` is final once it has ended."""

    def __init__(
        self,
        folders: StepFolders,
        draft: Path,
        handler: ocp.StandardCheckpointHandler,
        state: TrainState,
        keep: int | None,
    ) -> None:
        """Return once the state may change: it has been copied to the host."""
        super().__init__(daemon=True)
        self.step = int(state.step)
        self.error: Exception | None = None
        self._folders, self._draft, self._keep = folders, draft, keep
        self._handler = handler
        self._manifest = manifest.begin(state)
        self._writes: list[Any] = []
        self._start_error = error_of(lambda: self._start_writing(state))

    def _start_writing(self, state: TrainState) -> None:
        chunks = ocp.SaveArgs(chunk_byte_size=_CHUNK)
        save_args = jax.tree.map(lambda _: chunks, state)
        args = ocp.args.StandardSave(state, save_args=save_args)
        folder = epath.Path(self._draft / STATE)
        writing = self._handler.async_save(folder, args=args)
        self._writes += asyncio.run(writing) or []

    def run(self) -> None:
        """Commit once all processes have written."""
        try:
            error = self._start_error or error_of(self._end_writing)
            agree(error, f"writing of step {self.step}")
            on_first(self._commit, f"commit of step {self.step}")
        except Exception as error:  # noqa: BLE001  `poll` and `wait` tell it
            self.error = error
            if processes.is_first():
                self._folders.discard(self._draft)

    def _end_writing(self) -> None:
        while self._writes:  # each holds a copy of its arrays
            self._writes.pop().result()

    def _commit(self) -> None:
        self._handler.finalize(epath.Path(self._draft / STATE))
        self._folders.commit(self._draft, self.step, self._manifest())
        if self._keep:
            self._folders.remove_old(self._keep)


def on_first(act: Callable[[], Any], phase: str) -> None:
    """Process 0 acts while the others wait. Raises on all of them where it fails."""
    agree(error_of(act) if processes.is_first() else None, phase)


def agree(error: Exception | None, phase: str) -> None:
    """Raise on every process if one has an error: its own, or that another has one."""
    if processes.all_true(error is None, phase):
        return
    if error is None or isinstance(error, OSError):
        raise CheckpointError(reason_of(error) if error else OTHERS_FAILED) from error
    raise error


def error_of(act: Callable[[], Any]) -> Exception | None:
    """What `act` raises: the other processes have to hear of it first."""
    try:
        act()
    except Exception as error:  # noqa: BLE001  orbax raises many kinds
        return error
    return None


def reason_of(error: Exception) -> str:
    """In one line; of the long ones of tensorstore, how they begin and end."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = re.sub(r" \[[a-z_]+[\[=].*", "", str(error).strip().split("\n")[0])
    if len(text) > 300:
        text = f"{text[:80]} ... {text[-200:]}"
    kind = "" if isinstance(error, CheckpointError) else f"{type(error).__name__}: "
    return kind + text
