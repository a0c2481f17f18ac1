# SPDX-License-Identifier: Apache-2.0
"""Losses and gradients that are not finite: found, dumped for replay, gone around.

After one, train.on_non_finite ends the run ("halt"), leaves the step out ("skip": the
jitted step does that itself), or goes back to the newest checkpoint and on with other
batches ("rollback").
"""

import json
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Int

from trm_jax.errors import CheckpointError
from trm_jax.files import read_bytes, write_whole
from trm_jax.runtime import processes
from trm_jax.types import Metrics, TrainState

log = logging.getLogger(__name__)

OnHost = Mapping[str, tuple[Any, Any]]  # Metrics, fetched
MAX_SKIPS = 10  # in a row, since the start of this process
MAX_ROLLBACKS = 3  # to one checkpoint
REPLAY = (
    "In a copy of the workdir, set aside the checkpoints of this step and later ones "
    "and the lines of rollbacks.jsonl with this bad_step, and start the same command "
    "there: a step is a pure function of the state before it and of its batch."
)


class NonFiniteError(FloatingPointError):
    """A loss or gradient is not finite; the message names metric and step."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step


class Seen(NamedTuple):
    """What is looked at of one step: copies, for the next step takes the state."""

    step: int
    metrics: Metrics
    puzzle_ids: Int[Array, " b"]  # of the rows it worked on

    @classmethod
    def of(cls, step: int, state: TrainState) -> "Seen":
        """Of the state after `step`."""
        return cls(step, *_copies(state.metrics, state.carry.batch.puzzle_id))


class Rollback(NamedTuple):
    """From the state at `from_step` on, step s takes batch s + `shift`."""

    from_step: int
    bad_step: int
    shift: int


class Rollbacks:
    """workdir/rollbacks.jsonl, from which the numbers of the batches follow."""

    def __init__(self, workdir: str | Path) -> None:
        """Read it. Raises CheckpointError naming file and line where it is damaged."""
        self._path = Path(workdir) / "rollbacks.jsonl"
        lines = read_bytes(self._path, CheckpointError).splitlines()
        self._all = [self._parsed(line, i) for i, line in enumerate(lines, start=1)]
        processes.check_same("\n".join(map(str, self._all)), "rollbacks.jsonl")

    def batch_number(self, step: int) -> int:
        """Number of the batch with which the state at `step` goes on."""
        shifts = [r.shift for r in self._all if r.from_step <= step]
        return step + (shifts[-1] if shifts else 0)

    def count(self, from_step: int) -> int:
        """How often the run went back to this step."""
        return sum(r.from_step == from_step for r in self._all)

    def add(self, from_step: int, bad_step: int) -> None:
        """Record, on disk first, that no batch up to that of `bad_step` is used again.

        Raises CheckpointError where the file cannot be written.
        """
        unused = [r.from_step + r.shift for r in self._all]
        unused.append(self.batch_number(bad_step - 1) + 1)
        rollback = Rollback(from_step, bad_step, max(unused) - from_step)
        rollbacks = [*self._all, rollback]
        if processes.is_first():
            lines = [json.dumps(r._asdict()) + "\n" for r in rollbacks]
            write_whole(self._path, "".join(lines), CheckpointError)
        processes.barrier(f"rollback {len(rollbacks)} to step {from_step}")
        self._all = rollbacks

    def _parsed(self, line: bytes, number: int) -> Rollback:
        try:
            values = json.loads(line)
            rollback = Rollback(**values)
            if all(type(v) is int for v in rollback) and rollback.shift > 0:
                return rollback
        except (ValueError, TypeError):
            pass
        raise CheckpointError(
            f"{self._path} line {number}: expected a JSON object of the integers "
            f"from_step, bad_step, shift; found {line[:60].decode(errors='replace')!r}"
            ". The order of the batches hangs on it: restore it from a backup"
        )


class Guard:
    """Looks at every step once, in order, and acts as `policy` says."""

    def __init__(
        self, workdir: str | Path, *, policy: str, seed: int, rollbacks: Rollbacks
    ) -> None:
        self.policy = policy
        self._folder = Path(workdir) / "non_finite"
        self._seed, self._rollbacks = seed, rollbacks
        self._last = self._skipped = self._in_a_row = 0

    def start(self, state: TrainState) -> None:
        """From this state on; no later step has been looked at."""
        self._last = int(state.step)
        self._skipped = self._num_skipped(jax.device_get(state.metrics))
        self._in_a_row = 0

    def check(self, seen: Seen) -> None:
        """Dump and tell a step that is not finite. A second look does nothing.

        Raises NonFiniteError unless the step was skipped, and not too many in a row.
        """
        if seen.step <= self._last:
            return
        self._last = seen.step
        metrics = jax.device_get(seen.metrics)
        skipped, before = self._num_skipped(metrics), self._skipped
        self._skipped = skipped
        new_sums = metrics["skipped"][1] == 1
        was_skipped = skipped > (0 if new_sums else before)
        self._in_a_row = self._in_a_row + 1 if was_skipped else 0
        try:
            check_finite(seen.step, metrics)
        except NonFiniteError as error:
            path = self._dump(seen, metrics)
            raise NonFiniteError(f"{error} (to replay: {path})", seen.step) from None
        if was_skipped:
            path = self._dump(seen, metrics)
            what = f"loss or gradient is not finite at step {seen.step}"
            if self._in_a_row > MAX_SKIPS:
                raise NonFiniteError(
                    f"{what}, after {MAX_SKIPS} skipped in a row (to replay: {path})",
                    seen.step,
                )
            log.warning("%s: SKIPPED (to replay: %s)", what, path)

    def roll_back(self, from_step: int, error: NonFiniteError) -> None:
        """Record that the run goes on at `from_step`. Raises `error` if too often."""
        times = self._rollbacks.count(from_step)
        if times >= MAX_ROLLBACKS:
            raise NonFiniteError(
                f"{error}, after {times} rollbacks to step {from_step}", error.step
            )
        self._rollbacks.add(from_step, error.step)
        log.warning(
            "%s: ROLLED BACK to step %d; on with batch %d",
            error,
            from_step,
            self._rollbacks.batch_number(from_step),
        )

    def _num_skipped(self, metrics: OnHost) -> int:
        return int(metrics["skipped"][0])

    def _dump(self, seen: Seen, metrics: OnHost) -> Path:
        """Write what replays the step; on a full disk the run has worse to tell."""
        path = self._folder / f"step_{seen.step}.json"
        puzzle_ids = _on_all_devices(seen.puzzle_ids).tolist()
        record = {
            "step": seen.step,
            "seed": self._seed,
            "batch": self._rollbacks.batch_number(seen.step - 1),
            "batch_size": len(puzzle_ids),
            "puzzle_ids": puzzle_ids,
            "sums_and_counts_since_the_last_log_line": {
                name: [_in_json(float(v)) for v in pair]
                for name, pair in sorted(metrics.items())
            },
            "replay": REPLAY,
        }
        if processes.is_first():
            try:
                path.parent.mkdir(exist_ok=True)
                write_whole(path, json.dumps(record) + "\n", CheckpointError)
            except (OSError, CheckpointError) as error:
                log.warning("%s was not written: %s", path, error)
        processes.barrier(f"dump of step {seen.step}")
        return path


def check_finite(step: int, metrics: OnHost) -> None:
    """Raise NonFiniteError if a metric of the step is NaN or infinite."""
    for name, (total, _) in metrics.items():
        if not abs(total) < float("inf"):
            raise NonFiniteError(f"{name} is {total} at step {step}", step)


def _in_json(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _on_all_devices(ids: Array) -> Any:
    """On the host; some of the rows may lie with other processes."""
    mesh = getattr(ids.sharding, "mesh", None)
    everywhere = NamedSharding(mesh, PartitionSpec()) if mesh else None
    whole: Callable[[Array], Array] = jax.jit(lambda x: x, out_shardings=everywhere)
    return jax.device_get(whole(ids))


@jax.jit
def _copies(metrics: Metrics, ids: Array) -> tuple[Metrics, Array]:
    return jax.tree.map(jnp.copy, (metrics, ids))
