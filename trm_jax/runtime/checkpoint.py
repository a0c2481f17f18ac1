# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the TrainState: saved beside the training, checked when restored.

Orbax alone restores a flipped bit without complaint, takes a folder with missing files
or of a failed save for the newest step, and hangs where one of several processes fails.
So only its reader and writer of arrays are used. A step carries a manifest, every
restore is checked against it, and a damaged step is set aside (renamed, never deleted)
for the one before it.
"""

import errno
import functools
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath  # the only paths that orbax reads

from trm_jax.errors import CheckpointError, SaveError
from trm_jax.runtime import manifest, processes
from trm_jax.runtime.background_save import (
    OTHERS_FAILED,
    BackgroundSave,
    agree,
    error_of,
    on_first,
    reason_of,
)
from trm_jax.runtime.manifest import DamagedError
from trm_jax.runtime.step_folders import MANIFEST, STATE, StepFolders
from trm_jax.types import TrainState

log = logging.getLogger(__name__)

SAVE_LIMIT_S = 1800.0  # a save that takes longer has a disk that does not answer


class Checkpoints:
    """The checkpoints of one workdir: `workdir/checkpoints/<step>/`.

    Of several processes all make the same calls; process 0 moves the folders.
    """

    def __init__(self, workdir: str | Path, *, keep: int | None = None) -> None:
        """Open for training, keeping `keep` steps; or for reading alone (None).

        Raises CheckpointError where the folder is missing or cannot be created.
        """
        self.folder = Path(workdir).absolute() / "checkpoints"
        self._folders = StepFolders(self.folder)
        self._keep = keep
        self._handler = ocp.StandardCheckpointHandler()
        self._save: BackgroundSave | None = None
        self._failure: SaveError | None = None
        if keep is not None:
            on_first(self._folders.clear, f"opening of {self.folder}")
        elif not self.folder.is_dir():
            raise CheckpointError(f"{self.folder}: not found; nothing was saved yet")

    def steps(self) -> list[int]:
        """The steps that were saved, ascending; some may be damaged since."""
        return self._folders.steps()

    def save(
        self, state: TrainState, *, before: Callable[[], None] = lambda: None
    ) -> None:
        """Start saving the state under its step; does nothing if that step exists.

        Waits for the save before, whose failure the next `poll` or `wait` raises. What
        has to be on the disk first, process 0 brings there in `before`.

        Raises:
          SaveError: it cannot start: too little space, a folder that is read-only, or
            an error of `before`.
        """
        step, phase = int(state.step), f"start of save {int(state.step)}"
        self._settle()
        exists = processes.is_first() and os.path.isdir(self._folders.path(step))
        if not processes.all_true(not exists, phase):
            return
        draft = self._folders.next_draft(step)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))

        def begin() -> None:
            before()
            self._folders.make(draft, size)

        try:
            on_first(begin, phase)
        except CheckpointError as error:
            self._failure = None  # the newer one says as much
            raise self._save_error(step, error) from error
        self._save = BackgroundSave(
            self._folders, draft, self._handler, state, self._keep
        )
        self._save.start()

    def poll(self) -> None:
        """Log it if a save has been committed; never waits for one.

        Raises SaveError once a save has failed. The next one may succeed.
        """
        if self._save:
            ended = not self._save.is_alive()
            if processes.all_true(ended, f"look at save {self._save.step}"):
                self._settle()
        self._raise_failure()

    def wait(self) -> None:
        """Return when the save has been committed. Raises SaveError if one failed."""
        self._settle()
        self._raise_failure()

    def close(self) -> None:
        """Wait, then release what reads and writes.

        Only logs a save that failed: who has not called `wait` has another error.
        """
        try:
            self.wait()
        except SaveError as error:
            log.warning("SAVE FAILED: %s", error)
        self._handler.close()

    def _settle(self) -> None:
        save, self._save = self._save, None
        if save:
            save.join(SAVE_LIMIT_S)
            if save.is_alive():
                raise processes.ProcessError(
                    f"step {save.step} is not in {self.folder} after "
                    f"{SAVE_LIMIT_S:g} s; run again to resume"
                )
            if isinstance(save.error, processes.ProcessError):
                raise save.error
            if save.error:
                self._failure = self._save_error(save.step, save.error)
            else:
                log.info("saved step %d", save.step)

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure:
            raise failure

    def _save_error(self, step: int, error: Exception) -> SaveError:
        return SaveError(
            f"step {step} was not saved in {self.folder}: {reason_of(error)}; older "
            "checkpoints are intact"
        )

    def restore_newest(self, like: TrainState) -> TrainState | None:
        """The newest intact state, or None where nothing was ever saved.

        `like` gives shapes, dtypes and shardings. Damaged steps are renamed to
        `damaged-<step>` with a warning.

        Raises:
          CheckpointError: steps exist but none is intact, or they are of another shape.
        """
        reasons = []
        for step in reversed(self._same_steps()):
            try:
                state = self._restore(step, like)
            except DamagedError as error:
                reasons.append(f"step {step}: {error}")
                rename = functools.partial(self._folders.set_aside, step)
                on_first(rename, f"end of step {step}")
                log.warning("DAMAGED CHECKPOINT, %s; set aside", reasons[-1])
            else:
                if reasons:
                    log.warning("using the checkpoint of step %d instead", step)
                return state
        aside = self._folders.aside()
        if aside:
            reasons = reasons or [f"set aside earlier: {', '.join(aside)}"]
            raise CheckpointError(
                f"{self.folder}: no intact checkpoint is left; {'; '.join(reasons)}. "
                "Restore one of them from a backup, or start in a new workdir."
            )
        return None

    def restore_step(self, like: TrainState, step: int | None) -> TrainState:
        """The state of one step (None: the newest); changes no file.

        Raises CheckpointError where it is missing or damaged.
        """
        steps = self._same_steps()
        if not steps or (step is not None and step not in steps):
            wanted = "any step" if step is None else f"step {step}"
            found = ", ".join(map(str, steps)) or "none"
            raise CheckpointError(
                f"{self.folder}: no checkpoint of {wanted}; found: {found}"
            )
        step = steps[-1] if step is None else step
        try:
            return self._restore(step, like)
        except DamagedError as error:
            raise CheckpointError(f"{self._folders.path(step)}: {error}") from error

    def _same_steps(self) -> list[int]:
        self._settle()
        try:
            steps = self.steps()
        except OSError as error:
            raise CheckpointError(reason_of(error)) from error
        processes.check_same(" ".join(map(str, steps)), "list of checkpoints")
        return steps

    def _restore(self, step: int, like: TrainState) -> TrainState:
        """Raises DamagedError on all processes where one of them cannot read it."""
        read: list[Any] = []
        error = error_of(lambda: read.extend(self._read(step, like)))
        damaged = isinstance(error, DamagedError)
        phase = f"reading of step {step}"
        agree(None if damaged else error, phase)
        if not processes.all_true(not damaged, phase):
            raise error or DamagedError(OTHERS_FAILED)
        leaves, state = read
        manifest.check_digests(leaves, state)
        return state

    def _read(self, step: int, like: TrainState) -> tuple[dict[str, Any], TrainState]:
        folder, args = self._folders.path(step), ocp.args.StandardRestore(like)
        try:
            leaves = manifest.read(folder / MANIFEST, step)
            manifest.check_fits(folder, leaves, like)
            return leaves, self._handler.restore(epath.Path(folder / STATE), args=args)
        except (DamagedError, CheckpointError, jax.errors.JaxRuntimeError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001  orbax raises many kinds on damage
            reason = f"cannot be read: {reason_of(error)}"
            if _is_damage(error):
                raise DamagedError(reason) from error
            raise CheckpointError(f"{folder} {reason}") from error


def _is_damage(error: Exception) -> bool:
    """Whether files are to blame, not rights or limits of this machine."""
    if isinstance(error, TimeoutError):
        return False
    told = re.search(r"os_error_code='(\d+)'", str(error))  # by tensorstore
    number = int(told[1]) if told else getattr(error, "errno", None)
    return number in (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)
