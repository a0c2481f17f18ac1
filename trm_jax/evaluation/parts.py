# SPDX-License-Identifier: Apache-2.0
"""Rows of an evaluation on disk, so that one that was cut short can continue."""

import hashlib
import io
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trm_jax.errors import CheckpointError
from trm_jax.evaluation.evaluate import EvalOutput, joined
from trm_jax.files import read_bytes, write_whole

FLUSH_S = 20.0  # a kill loses at most the work of so many seconds and one batch


class EvalParts:
    """Files `rows_<first>-<digest>.npz` in a folder of one evaluation only.

    `about` identifies the evaluation: it holds everything that the rows depend on.
    Each evaluation has its own folder, so that rows are never mixed or overwritten.
    All processes read the files, but only the process with `writes` writes them.
    """

    def __init__(
        self, base: str | Path, about: Mapping[str, Any], *, writes: bool
    ) -> None:
        about = {**about, "arrays": EvalOutput._fields}
        text = json.dumps(about, indent=2, sort_keys=True) + "\n"
        name = f"step_{about['step']}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        self.folder = Path(base) / name
        self._writes = writes
        self._about = text
        self._parts: list[EvalOutput] = []
        self._waiting: list[EvalOutput] = []
        self._flushed_at = time.monotonic()
        self.num_rows = 0  # done so far
        while paths := sorted(self.folder.glob(f"rows_{self.num_rows:09d}-*.npz")):
            self._parts.append(_read(paths[0]))
            self.num_rows += len(self._parts[-1].predictions)
        self._num_written = self.num_rows

    def add(self, rows: EvalOutput) -> None:
        """Keep the next rows; write them if the last write is FLUSH_S seconds ago."""
        self._waiting.append(rows)
        self.num_rows += len(rows.predictions)
        if time.monotonic() - self._flushed_at > FLUSH_S:
            self._flush()

    def finish(self) -> EvalOutput:
        """Write the remaining rows, and return all rows in order."""
        self._flush()
        return joined(self._parts)

    def _flush(self) -> None:
        if self._waiting:
            if not self._num_written:
                self._write("about.json", self._about)
            part = joined(self._waiting)
            content = io.BytesIO()
            np.savez_compressed(content, **part._asdict())
            rows, digest = content.getvalue(), _digest(content.getvalue())
            self._write(f"rows_{self._num_written:09d}-{digest}.npz", rows)
            self._parts.append(part)
            self._waiting = []
            self._num_written = self.num_rows
        self._flushed_at = time.monotonic()

    def remove(self) -> None:
        """Remove the files of this evaluation."""
        if self._writes:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, name: str, content: str | bytes) -> None:
        if self._writes:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_whole(self.folder / name, content, CheckpointError)


def _read(path: Path) -> EvalOutput:
    content = read_bytes(path, CheckpointError)
    if not path.stem.endswith(f"-{_digest(content)}"):
        raise CheckpointError(
            f"{path}: does not match the digest in its name; remove it, and the same "
            "command evaluates its rows and those after it again"
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return EvalOutput(**{name: arrays[name] for name in EvalOutput._fields})


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
