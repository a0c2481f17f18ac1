# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the TrainState: saved in the background, verified when restored.

Only orbax's reader and writer of arrays are used. Its CheckpointManager restores a
flipped bit without complaint, counts folders with missing files as steps, and leaves
all processes waiting if one of them fails to save. Here every step has a manifest
of digests, and a damaged step is set aside (renamed, never deleted).
"""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from trm_jax.errors import CheckpointError, SaveError, error_of, reason_of
from trm_jax.runtime import background_save as saving
from trm_jax.runtime import manifest, processes
from trm_jax.runtime.background_save import BackgroundSave
from trm_jax.runtime.manifest import DamagedError
from trm_jax.types import TrainState

log = logging.getLogger(__name__)

SAVE_LIMIT_S = 1800.0  # after this time the disk is assumed not to answer


class Checkpoints:
    """The checkpoints of one workdir: `workdir/checkpoints/<step>/`.

    All processes must make the same calls; process 0 moves the folders.
    """

    def __init__(self, workdir: str | Path, *, keep: int | None = None) -> None:
        """Open for training, keeping the newest `keep` steps, or only to read (None).

        Raises CheckpointError if the folder is missing or cannot be created.
        """
        self.folder = Path(workdir).absolute() / "checkpoints"
        self._keep = keep
        self._handler = ocp.StandardCheckpointHandler()
        self._reader = ocp.PyTreeCheckpointHandler()
        self._save: BackgroundSave | None = None
        self._num_drafts = 0
        self.records: dict[str, Any] = {}  # of the step that was restored last
        if keep is not None:
            opened = f"opening of {self.folder}"
            processes.on_first(lambda: saving.remove_drafts(self.folder), opened)
        elif not self.folder.is_dir():
            raise CheckpointError(f"{self.folder}: not found; nothing was saved yet")

    def steps(self) -> list[int]:
        """The steps that were saved, ascending; some may have been damaged since."""
        return saving.steps_in(self.folder)

    def try_to_save(self, state: TrainState) -> None:
        """Save the step of the state alone, read it back, and remove it.

        A run does so before its first step. Raises SaveError if it fails.
        """
        self.wait()
        only_step: Any = {name: None for name in state._fields if name != "step"}
        draft = self.folder / f"trial{saving.DRAFT}-{self._num_drafts}"
        tiny, phase = state._replace(**only_step), f"trial save in {self.folder}"
        try:
            processes.on_first(lambda: saving.make_draft(draft, 0), phase)
            self._join(BackgroundSave(draft, tiny, self._handler, 0, {}))
        except SaveError as error:
            raise SaveError(f"trial before the first step: {error}") from error

    def save(
        self, state: TrainState, *, before: Callable[[], dict[str, Any]] = dict
    ) -> None:
        """Start saving the state under its step; does nothing if that step exists.

        Process 0 calls `before()` first, to flush whatever must reach the disk before
        the checkpoint; what it returns is put into `records` when the step is restored.

        Raises:
          SaveError: the save cannot start (too little space, a read-only folder, an
            error in `before`), or the previous save failed.
        """
        self.wait()
        step, phase = int(state.step), f"start of save {int(state.step)}"
        exists = processes.is_first() and self._path(step).is_dir()
        if not processes.all_true(not exists, phase):
            return
        # Drafts are numbered, since a failed save may still be writing to its own.
        self._num_drafts += 1
        draft = self.folder / f"{step}{saving.DRAFT}-{self._num_drafts}"
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))

        records: dict[str, Any] = {}

        def begin() -> None:
            records.update(before())
            saving.make_draft(draft, size)

        try:
            processes.on_first(begin, phase)
        except CheckpointError as error:
            raise self._save_error(step, error) from error
        self._save = BackgroundSave(draft, state, self._handler, self._keep, records)

    def poll(self) -> None:
        """Call `wait` if the save has ended on all processes."""
        if self._save:
            ended = not self._save.is_alive()
            if processes.all_true(ended, f"look at save {self._save.step}"):
                self.wait()

    def wait(self) -> None:
        """Wait until the current save has been committed, and log that.

        Raises SaveError if it failed. The next save may succeed.
        """
        save, self._save = self._save, None
        if save:
            self._join(save)
            log.info("saved step %d", save.step)

    def _join(self, save: BackgroundSave) -> None:
        save.join(SAVE_LIMIT_S)
        if save.is_alive():
            raise processes.ProcessError(
                f"step {save.step} is not in {self.folder} after {SAVE_LIMIT_S:g} s; "
                "run again to resume"
            )
        if isinstance(save.error, processes.ProcessError):
            raise save.error
        if save.error:
            raise self._save_error(save.step, save.error) from save.error

    def close(self) -> None:
        """Wait, then release orbax's threads.

        A failed save is only logged: a caller that skips `wait` is handling an error.
        """
        try:
            self.wait()
        except SaveError as error:
            log.warning("SAVE FAILED: %s", error)
        self._handler.close()

    def _path(self, step: int) -> Path:
        return self.folder / str(step)

    def _save_error(self, step: int, error: Exception) -> SaveError:
        return SaveError(
            f"step {step} was not saved in {self.folder}: {reason_of(error)}; older "
            "checkpoints are intact"
        )

    def restore_newest(self, like: TrainState) -> TrainState | None:
        """Return the newest intact state, or None if nothing was ever saved.

        `like` gives shapes, dtypes and shardings. Damaged steps are renamed to
        `damaged-<step>` with a warning.

        Raises:
          CheckpointError: steps exist but none is intact, or they do not fit `like`.
        """
        reasons = []
        for step in reversed(self._same_steps()):
            try:
                state = self._restore(step, like)
            except DamagedError as error:
                reasons.append(f"step {step}: {error}")
                processes.on_first(lambda: self._set_aside(step), f"end of step {step}")  # noqa: B023
                log.warning("DAMAGED CHECKPOINT, %s; set aside", reasons[-1])
            else:
                if reasons:
                    log.warning("using the checkpoint of step %d instead", step)
                return state
        aside = sorted(path.name for path in self.folder.glob("damaged-*"))
        if aside:
            reasons = reasons or [f"set aside earlier: {', '.join(aside)}"]
            raise CheckpointError(
                f"{self.folder}: no intact checkpoint is left; {'; '.join(reasons)}. "
                "Restore one of them from a backup, or start in a new workdir."
            )
        return None

    def restore_step(self, like: TrainState, step: int | None) -> TrainState:
        """Return the state of one step (None: the newest); no file is changed.

        Fields that are None in `like` are not read.

        Raises CheckpointError if the step is missing or damaged.
        """
        steps = self._same_steps()
        asked = "any step" if step is None else f"step {step}"
        step = steps[-1] if step is None and steps else step
        if step is None or step not in steps:
            found = f"found: {', '.join(map(str, steps)) or 'none'}"
            raise CheckpointError(f"{self.folder}: no checkpoint of {asked}; {found}")
        try:
            return self._restore(step, like)
        except DamagedError as error:
            raise CheckpointError(f"{self._path(step)}: {error}") from error

    def _same_steps(self) -> list[int]:
        self.wait()
        try:
            steps = self.steps()
        except OSError as error:
            raise CheckpointError(reason_of(error)) from error
        processes.check_same(" ".join(map(str, steps)), "list of checkpoints")
        return steps

    def _set_aside(self, step: int) -> None:
        target, copy = self.folder / f"damaged-{step}", 1
        while os.path.lexists(target):
            copy += 1
            target = self.folder / f"damaged-{step}-{copy}"
        self._path(step).rename(target)

    def _restore(self, step: int, like: TrainState) -> TrainState:
        """Raise DamagedError on all processes if one of them cannot read the step."""
        read: list[Any] = []
        error = error_of(lambda: read.extend(self._read(step, like)))
        damaged = isinstance(error, DamagedError)
        processes.agree(None if damaged else error, f"reading of step {step}")
        if not processes.all_true(not damaged, f"check of step {step}"):
            raise error or DamagedError(processes.OTHERS_FAILED)
        body, state = read
        manifest.check_digests(body["leaves"], state)
        self.records = body["records"]
        return state

    def _read(self, step: int, like: TrainState) -> tuple[dict[str, Any], TrainState]:
        folder = self._path(step)
        body = manifest.read(folder / saving.MANIFEST, step)
        manifest.check_fits(folder, body["leaves"], like)
        fields = {k: v for k, v in like._asdict().items() if v is not None}
        how = ocp.checkpoint_utils.construct_restore_args(fields)
        args = ocp.args.PyTreeRestore(fields, restore_args=how, partial_restore=True)
        try:
            path = saving.OrbaxPath(folder / saving.STATE)
            return body, like._replace(**self._reader.restore(path, args=args))
        except Exception as error:  # noqa: BLE001  orbax raises many kinds
            reason = f"cannot be read: {reason_of(error)}"
            if damaged := manifest.damaged_file(folder / saving.STATE, body["files"]):
                raise DamagedError(f"{reason}; {damaged} is damaged") from error
            raise CheckpointError(f"{folder} is whole, but {reason}") from error
