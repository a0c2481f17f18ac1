# SPDX-License-Identifier: Apache-2.0
"""workdir/metrics.jsonl: one JSON object per logged step, each step once.

Beside it, TensorBoard events of the same numbers where tensorboardX is installed.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

from trm_jax.errors import CheckpointError

log = logging.getLogger(__name__)


class MetricWriter:
    """Appends records; after a restore at `step`, drops those of later steps.

    A last line without its newline is the trace of a kill and is dropped as well: its
    step has not been saved, so the run will write it again.
    """

    def __init__(self, workdir: str | Path, *, step: int) -> None:
        self._path = Path(workdir) / "metrics.jsonl"
        self.last_step = -1
        kept = []
        if self._path.exists():
            lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
            for number, line in enumerate(lines, start=1):
                if not line.endswith("\n"):
                    break
                record_step = self._step_of(line, number)
                if record_step <= step:
                    kept.append(line)
                    self.last_step = record_step
        draft = self._path.with_suffix(".jsonl.tmp")
        draft.write_text("".join(kept), encoding="utf-8")
        os.replace(draft, self._path)
        self._file = open(self._path, "a", encoding="utf-8")  # noqa: SIM115
        self._events = _event_writer(Path(workdir) / "events", step)

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; it has a `step` greater than all before."""
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        self.last_step = record["step"]
        if self._events:
            for name, value in record.items():
                if isinstance(value, int | float) and name != "step":
                    self._events.add_scalar(name, value, record["step"])
            self._events.flush()

    def sync(self) -> None:
        """Force the lines to disk: called before their step is saved."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the files."""
        self._file.close()
        if self._events:
            self._events.close()

    def _step_of(self, line: str, number: int) -> int:
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{self._path} line {number}: expected a JSON object with a step, "
                f"found {line.strip()[:60]!r}"
            ) from error


def _event_writer(folder: Path, step: int) -> Any:
    """A TensorBoard writer that hides events after `step`; None without the package."""
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        log.info("tensorboardX is not installed: no TensorBoard events")
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
