# SPDX-License-Identifier: Apache-2.0
"""workdir/metrics.jsonl: one JSON object per logged step, each step once.

If tensorboardX is installed, TensorBoard events hold the same numbers.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trm_jax.errors import CheckpointError, SaveError
from trm_jax.files import read_bytes, write_whole
from trm_jax.runtime import processes

log = logging.getLogger(__name__)


class MetricWriter:
    """Append records; after a restore at `step`, drop the records of later steps.

    A last line without a newline was cut off by a kill and is dropped as well: its step
    was not saved, so the run writes the line again. Only process 0 writes.

    `committed` is what `sync` returned when the checkpoint was saved.

    Raises CheckpointError if the file is damaged or cannot be written at the start, and
    SaveError if it cannot be written later: the next call writes what is missing.
    """

    def __init__(
        self,
        workdir: str | Path,
        *,
        step: int,
        committed: Mapping[str, Any] | None = None,
    ) -> None:
        self._path = Path(workdir) / "metrics.jsonl"
        self.last_step = -1
        self._pending = kept = b""
        content = read_bytes(self._path, CheckpointError)
        self._check(content, committed or {}, step)
        *lines, _ = content.split(b"\n")
        steps = [self._step_of(line, i) for i, line in enumerate(lines, start=1)]
        for i, (line, line_step) in enumerate(zip(lines, steps, strict=True)):
            if i and line_step <= steps[i - 1]:
                raise CheckpointError(
                    f"{self._path} line {i + 1}: step {line_step} after {steps[i - 1]}"
                )
            if line_step <= step:
                kept += line + b"\n"
                self.last_step = line_step
        if step > 0 and not kept:
            log.warning("warning: %s: no lines up to step %d", self._path, step)
        processes.check_same(str(self.last_step), f"last line in {self._path}")
        processes.on_first(lambda: self._open(kept, step), f"start of {self._path}")

    def _check(self, content: bytes, committed: Mapping[str, Any], step: int) -> None:
        """Raise CheckpointError if the lines up to the checkpoint were changed."""
        size, digest = committed.get("size", 0), committed.get("sha256")
        found = hashlib.sha256(content[:size]).hexdigest()
        if content and digest and found != digest:
            raise CheckpointError(
                f"{self._path}: its first {size} bytes were changed or lost since step "
                f"{step} was saved; restore it from a backup, or remove it to go on "
                "without the lines before"
            )

    def _open(self, kept: bytes, step: int) -> None:
        self._size, self._sha256 = len(kept), hashlib.sha256(kept)
        write_whole(self._path, kept, CheckpointError)
        self._events = _event_writer(self._path.parent / "events", step)
        self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115

    def write(self, record: dict[str, Any]) -> None:
        """Append one record, whose `step` is greater than all before."""
        self.last_step = record["step"]
        if processes.is_first():
            line = json.dumps(record).encode() + b"\n"
            self._size += len(line)
            self._sha256.update(line)
            self._pending += line
            self._flush()
            self._add_events(record)

    def sync(self) -> dict[str, Any]:
        """Flush the lines to the disk; return their size and digest, for a checkpoint.

        Only process 0 does; the others get an empty dict.
        """
        if not processes.is_first():
            return {}
        self._flush(force=True)
        return {"size": self._size, "sha256": self._sha256.hexdigest()}

    def close(self) -> None:
        """Close the files."""
        if processes.is_first():
            self._file.close()
            if self._events:
                with contextlib.suppress(OSError):
                    self._events.close()

    def _flush(self, *, force: bool = False) -> None:
        try:
            while self._pending:  # a full disk may cut a write short
                self._pending = self._pending[self._file.write(self._pending) :]
            if force:
                os.fsync(self._file.fileno())
        except OSError as error:
            reason = f"{self._path} cannot be written: {error.strerror}"
            raise SaveError(reason) from error

    def _add_events(self, record: dict[str, Any]) -> None:
        if not self._events:
            return
        try:
            for name, value in record.items():
                if isinstance(value, int | float) and name != "step":
                    self._events.add_scalar(name, value, record["step"])
            self._events.flush()
        except OSError as error:  # this writer does not recover: its thread has ended
            self._events = None
            log.warning("no more TensorBoard events: %s", error)

    def _step_of(self, line: bytes, number: int) -> int:
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self._path} line {number}: expected a JSON object with a step, "
                f"found {line[:60].decode(errors='replace')!r}"
            ) from error


def _event_writer(folder: Path, step: int) -> Any:
    """A TensorBoard writer that hides events after `step`; None without the package."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        log.info("tensorboardX is not installed: no TensorBoard events")
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
