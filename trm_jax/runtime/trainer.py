# SPDX-License-Identifier: Apache-2.0
"""The training loop: step, log, evaluate, save; stop and resume at any step."""

import dataclasses
import logging
import math
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import Any

import optax

from trm_jax.errors import SaveError, Stopped
from trm_jax.runtime.checkpoint import Checkpoints
from trm_jax.runtime.metric_writer import MetricWriter
from trm_jax.runtime.non_finite import Guard, Seen
from trm_jax.training.config import Train
from trm_jax.training.metrics import log_line, mean_metrics
from trm_jax.types import Batch, TrainState

log = logging.getLogger(__name__)

OnBatch = Callable[[int], None]
SECONDS = "train/seconds"  # a key of metrics.jsonl, and of the records of a checkpoint


@dataclasses.dataclass(kw_only=True)
class Trainer:
    """The training loop and the objects that it uses; see `run`."""

    train_step: Callable[[TrainState, Batch], TrainState]
    batches: Callable[[int, int], Iterator[Batch]]  # for steps first + 1 to last
    evaluate: Callable[[TrainState, OnBatch], dict[str, Any]]
    checkpoints: Checkpoints
    writer: MetricWriter
    guard: Guard
    settings: Train
    schedule: optax.Schedule
    flops: Callable[[int], int]  # of the first updates
    seconds_before: float | None  # of training before this start; None if unknown
    before_save: Callable[[], None] = lambda: None
    # All processes must call this equally often. The loop does: its calls depend only
    # on the step and on earlier answers, and an evaluation calls it once per batch.
    stop_requested: Callable[[], bool] = lambda: False
    on_step: Callable[[int], None] = lambda step: None
    on_record: Callable[[dict[str, Any]], None] = lambda record: None
    _start: float = 0.0  # of this sitting; an evaluation moves it by its duration
    _line: tuple[float, int] = (0.0, 0)  # seconds and step of the line before

    def run(self, state: TrainState) -> TrainState:
        """Train to the last step; log, evaluate and save whenever they are due.

        A resumed run first does what is still due after the step that it starts from.
        So it writes the line that a kill cut off, and writes no line twice.

        Raises:
          Stopped: a stop was requested; the state has been saved.
          NonFiniteError: a loss or gradient sum is not finite; its step was not saved.
          SaveError: a save failed, and it was the final one or on_save_error is "stop".
        """
        first, last = int(state.step), self.settings.steps
        self._start, self._line = time.monotonic(), (0.0, first)
        self.guard.start(state)
        with closing(self.writer):
            self._after_step(first, state)
            seen = Seen.of(first, state)
            for step, batch in enumerate(self.batches(first, last), start=first + 1):
                state = self.train_step(state, batch)
                self.guard.check(seen)  # one step late, so that no device waits
                seen = Seen.of(step, state)
                self.on_step(step)
                if self._anything_due(step) or self.stop_requested():
                    self.guard.check(seen)
                    self._after_step(step, state)
            self.writer.sync()
        return state

    def _due(self, step: int, every: int) -> bool:
        """Whether something done every `every` steps (0: only at the end) is due."""
        return step == self.settings.steps or bool(every and step and step % every == 0)

    def _anything_due(self, step: int) -> bool:
        s = self.settings
        each = s.log_every, s.eval_every, s.checkpoint_every
        return any(self._due(step, every) for every in each)

    def _after_step(self, step: int, state: TrainState) -> None:
        """Log, evaluate and save if they are due; stop if a stop was requested."""
        self._tolerate(self.checkpoints.poll)
        if step > self.writer.last_step:
            record = self._record(step, state)
            if record:
                line = {"step": step} | record
                self._tolerate(lambda: self.writer.write(line))
                self.on_record(line)
        stop, last = self.stop_requested(), self.settings.steps
        if stop or self._due(step, self.settings.checkpoint_every):
            self._save(step, state, is_last=stop or step == last)
        # The last step is always logged: without a line, its evaluation was cut short.
        if stop and (step < last or self.writer.last_step < step):
            raise Stopped(f"stopped after step {step}; saved, run again to resume")

    def _save(self, step: int, state: TrainState, *, is_last: bool) -> None:
        self.before_save()
        self._tolerate(self.checkpoints.wait)  # for the previous save
        save = partial(self.checkpoints.save, state, before=self._synced)
        if is_last:
            save()
            self.checkpoints.wait()
        else:
            self._tolerate(save)

    def _synced(self) -> dict[str, Any]:
        return {"metrics.jsonl": self.writer.sync(), SECONDS: self._all_seconds()}

    def _all_seconds(self) -> float | None:
        """Seconds of training in all sittings, without evaluations; None if unknown."""
        if self.seconds_before is None:
            return None
        return round(self.seconds_before + time.monotonic() - self._start, 3)

    def _tolerate(self, act: Callable[[], None]) -> None:
        """Call `act`, and continue after a failed save if the config says so."""
        try:
            act()
        except SaveError as error:
            if self.settings.on_save_error == "stop":
                raise
            log.warning("SAVE FAILED, going on: %s", error)

    def _record(self, step: int, state: TrainState) -> dict[str, Any]:
        """The line of this step; empty if a stop cuts its evaluation short."""
        record: dict[str, Any] = {}
        if self._due(step, self.settings.log_every):
            record |= self._log_line(step, state)
        if self._due(step, self.settings.eval_every):
            try:
                record |= self._evaluate(step, state)
            except Stopped:
                return {}
        if record:
            record[SECONDS] = self._all_seconds()
            record["train/flops"] = self.flops(step)
        return record

    def _log_line(self, step: int, state: TrainState) -> dict[str, Any]:
        means, last = mean_metrics(state.metrics), self.settings.steps
        (then, first), now = self._line, time.monotonic() - self._start
        # The rate is unknown if a resumed run only writes the line that was cut off.
        rate = (step - first) / max(now - then, 1e-9) or math.nan
        log.info("%s", log_line(step, last, means, rate))
        self._line = now, step
        record = {f"train/{name}": value for name, value in means.items()}
        known_rate = None if math.isnan(rate) else round(rate, 4)
        return record | {"lr": float(self.schedule(step)), "steps_per_s": known_rate}

    def _evaluate(self, step: int, state: TrainState) -> dict[str, Any]:
        began = time.monotonic()
        try:
            scores = self.evaluate(state, self._raise_if_stopped)
        finally:
            self._start += time.monotonic() - began
        floats = {k: v for k, v in scores.items() if isinstance(v, float)}
        shown = f"step {step} evaluation  "
        shown += "  ".join(f"{k} {v:.4f}" for k, v in floats.items())
        log.info("%s", textwrap.fill(shown, 79, subsequent_indent="    "))
        return {f"eval/{name}": value for name, value in scores.items()}

    def _raise_if_stopped(self, _: int) -> None:
        if self.stop_requested():
            raise Stopped("evaluation cut short")
