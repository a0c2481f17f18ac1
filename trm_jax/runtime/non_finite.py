# SPDX-License-Identifier: Apache-2.0
"""Losses and gradients that are not finite: found within one step, dumped for replay.

If train.on_non_finite is "halt" the run ends; if "skip" the step changes no weight.
"""

import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Array, Int

from trm_jax.errors import CheckpointError
from trm_jax.files import write_whole
from trm_jax.runtime import processes
from trm_jax.types import Metrics, TrainState

log = logging.getLogger(__name__)

MAX_SKIPS = 10  # consecutive steps, since the start of this process


class NonFiniteError(FloatingPointError):
    """A loss or gradient is not finite; the message names metric and step."""


class Seen(NamedTuple):
    """Copies of what the guard reads, since the next step donates the state."""

    step: int
    metrics: Metrics
    puzzle_ids: Int[Array, " b"]  # of the rows it worked on

    @classmethod
    def of(cls, step: int, state: TrainState) -> "Seen":
        """Copy from the state after `step`."""
        return cls(step, *_copies(state.metrics, state.carry.batch.puzzle_id))


class Guard:
    """Check every step once, in order."""

    def __init__(self, workdir: str | Path, *, seed: int) -> None:
        self._folder = Path(workdir) / "non_finite"
        self._seed = seed
        self._last = self._skipped = self._in_a_row = 0

    def start(self, state: TrainState) -> None:
        """Begin at this state; only later steps are checked."""
        self._last = int(state.step)
        self._skipped = int(jax.device_get(state.metrics["skipped"][0]))
        self._in_a_row = 0

    def check(self, seen: Seen) -> None:
        """Dump and report a step that is not finite. A second call for it does nothing.

        Raises NonFiniteError if the step was not skipped, or after too many skips.
        """
        if seen.step <= self._last:
            return
        self._last = seen.step
        metrics = jax.device_get(seen.metrics)
        skipped, num_steps = map(int, metrics["skipped"])
        before = 0 if num_steps == 1 else self._skipped  # a log line resets sums
        self._skipped = skipped
        was_skipped = skipped > before
        self._in_a_row = self._in_a_row + 1 if was_skipped else 0
        bad = [f"{k} is {v}" for k, (v, _) in metrics.items() if not math.isfinite(v)]
        if not bad and not was_skipped:
            return
        what = f"{(bad or ['loss or gradient is not finite'])[0]} at step {seen.step}"
        replay = f"(to replay: {self._dump(seen, metrics)})"
        if bad:
            raise NonFiniteError(f"{what} {replay}")
        if self._in_a_row > MAX_SKIPS:
            limit = f"after {MAX_SKIPS} skipped in a row"
            raise NonFiniteError(f"{what}, {limit} {replay}")
        log.warning("%s: SKIPPED %s", what, replay)

    def _dump(self, seen: Seen, metrics: Mapping[str, Any]) -> Path:
        """Write what a replay of the step needs; a full disk loses only this dump."""
        path = self._folder / f"step_{seen.step}.json"
        # Other processes may hold some of the rows.
        gathered = multihost_utils.process_allgather(seen.puzzle_ids, tiled=True)
        puzzle_ids = np.asarray(gathered).tolist()
        record = {
            "step": seen.step,
            "seed": self._seed,
            "batch": seen.step - 1,
            "batch_size": len(puzzle_ids),
            "puzzle_ids": puzzle_ids,
            "sums_and_counts_since_the_last_log_line": {
                name: [float(v) if math.isfinite(v) else str(v) for v in pair]
                for name, pair in sorted(metrics.items())
            },
        }
        if processes.is_first():
            try:
                path.parent.mkdir(exist_ok=True)
                write_whole(path, json.dumps(record) + "\n", CheckpointError)
            except (OSError, CheckpointError) as error:
                log.warning("%s was not written: %s", path, error)
        processes.barrier(f"dump of step {seen.step}")
        return path


@jax.jit
def _copies(metrics: Metrics, ids: Array) -> tuple[Metrics, Array]:
    return jax.tree.map(jnp.copy, (metrics, ids))
