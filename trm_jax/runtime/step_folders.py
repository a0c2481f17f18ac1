# SPDX-License-Identifier: Apache-2.0
"""Folders of checkpoints: `<step>`, drafts of them, and `damaged-<step>`.

A draft gets the name of its step by one rename, once all of it is on the disk; so a
folder with the name of a step is never half of one, whatever is killed or full.
"""

import errno
import logging
import os
import shutil
from pathlib import Path

from trm_jax.files import sync_folder

log = logging.getLogger(__name__)

STATE, MANIFEST = "state", "manifest/metadata"  # in the folder of a step
_DRAFT = ".orbax-checkpoint-tmp"  # in the name of what is no step yet, or no more
_FREE = 2  # times the bytes of the state that have to be free for a save
_GIB = 2**30


class StepFolders:
    """The folder that holds them; all methods may raise OSError."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._drafts = 0

    def steps(self) -> list[int]:
        """The steps that were saved, ascending; some may be damaged."""
        names = [path.name for path in self.root.iterdir()]
        return sorted(int(n) for n in names if n.isdecimal() and n == str(int(n)))

    def path(self, step: int) -> Path:
        """The folder of a step."""
        return self.root / str(step)

    def next_draft(self, step: int) -> Path:
        """A name: something may still be written to the draft of a save that failed."""
        self._drafts += 1
        return self.root / f"{step}{_DRAFT}-{self._drafts}"

    def clear(self) -> None:
        """Create the root; remove what failed saves and kills left there."""
        self.root.mkdir(parents=True, exist_ok=True)
        for left in self.root.glob(f"*{_DRAFT}*"):
            self.discard(left)

    def make(self, draft: Path, size: int) -> None:
        """Start a draft of a state of `size` bytes, if there is room for it."""
        self.clear()
        free, needed = shutil.disk_usage(self.root).free, _FREE * size
        if free < needed:
            reason = f"{free / _GIB:.3g} GiB are free, a save needs {needed / _GIB:.3g}"
            raise OSError(errno.ENOSPC, reason, str(self.root))
        (draft / STATE).mkdir(parents=True)

    def commit(self, draft: Path, step: int, manifest: str) -> None:
        """Make a step of a draft whose arrays are written."""
        path = draft / MANIFEST
        path.parent.mkdir()
        with path.open("x", encoding="utf-8") as file:
            file.write(manifest)
            file.flush()
            os.fsync(file.fileno())
        for part in (draft, *draft.rglob("*")):
            if part.is_dir():
                sync_folder(part)
            elif not part.stat().st_size:
                raise OSError(errno.EIO, "not all that was written is there", str(part))
        draft.rename(self.path(step))
        sync_folder(self.root)

    def discard(self, draft: Path) -> None:
        """Remove a draft as far as that is possible: what stays is in nobody's way."""
        shutil.rmtree(draft, ignore_errors=True)

    def remove_old(self, keep: int) -> None:
        """Remove all but the newest steps. What cannot be removed is only told."""
        try:
            for step in self.steps()[:-keep]:
                # Not `next_draft`: its number has to be the same on all processes.
                doomed = self.root / f"{step}{_DRAFT}-old"
                self.path(step).rename(doomed)
                shutil.rmtree(doomed)
        except OSError as error:
            log.warning("old checkpoints were not removed: %s", error)

    def set_aside(self, step: int) -> str:
        """Rename a damaged step; the new name."""
        target, copy = self.root / f"damaged-{step}", 1
        while target.exists():
            copy += 1
            target = self.root / f"damaged-{step}-{copy}"
        self.path(step).rename(target)
        return target.name

    def aside(self) -> list[str]:
        """Names of the damaged steps."""
        return sorted(path.name for path in self.root.glob("damaged-*"))
