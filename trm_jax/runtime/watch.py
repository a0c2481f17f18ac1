# SPDX-License-Identifier: Apache-2.0
"""What observes a run from outside: records for Weights & Biases, a profile of steps.

Nothing here changes a run. If an observer fails, it warns once and the run continues.
"""

import contextlib
import dataclasses
import hashlib
import importlib.util
import itertools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trm_jax.errors import ConfigError, error_of, reason_of
from trm_jax.runtime import processes

log = logging.getLogger(__name__)

TrainStep = Callable[[Any, Any], Any]
OnRecord = Callable[[Mapping[str, Any]], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watch:
    """The observers of a run; by default there are none."""

    wandb: str = ""  # the project that gets the records
    profile: tuple[int, int] | None = None  # the first and the last step

    def check(self, steps: int) -> None:
        """Raise ConfigError if an observer cannot work in a run of `steps` steps."""
        if self.wandb and importlib.util.find_spec("wandb") is None:
            raise ConfigError(
                f"--wandb={self.wandb}: wandb is not installed; pip install wandb"
            )
        if self.profile and not 1 <= self.profile[0] <= self.profile[1] <= steps:
            raise ConfigError(
                f"--profile={self.profile[0]},{self.profile[1]}; expected the first "
                f"and the last step, 1 <= FIRST <= LAST <= train.steps = {steps}"
            )

    @contextmanager
    def observing(
        self, loop: Any, workdir: str | Path, config: Mapping[str, Any], done: int
    ) -> Iterator[None]:
        """Observe the run of a Trainer that has done `done` steps.

        A profile is written to WORKDIR/profile; it ends early if the run does. A run
        that resumes continues its wandb run, whose id is made from the first line of
        runs.jsonl. WANDB_MODE=offline and other variables of wandb hold.
        """
        with contextlib.ExitStack() as stack:
            if self.profile:
                step = self._profiled(loop.train_step, Path(workdir), done)
                loop.train_step = stack.enter_context(step)
            if self.wandb and processes.is_first():
                mirror = self._mirror(Path(workdir), config)
                loop.on_record = stack.enter_context(mirror)
            yield

    @contextmanager
    def _profiled(
        self, train_step: TrainStep, workdir: Path, done: int
    ) -> Iterator[TrainStep]:
        import jax

        ends = self.profile or (1, 0)
        first, last = max(ends[0], done + 1), ends[1]
        if first > last:
            log.warning("--profile: step %d is over; nothing is profiled", last)
        numbers, folder = itertools.count(done + 1), workdir / "profile"
        running = False

        def stop() -> None:
            nonlocal running
            running = False
            if _try("profile", jax.profiler.stop_trace):
                log.info("profile of steps from %d on written to %s", first, folder)

        def step(state: Any, batch: Any) -> Any:
            nonlocal running
            number = next(numbers)
            if number == first <= last:
                jax.block_until_ready(state)
                running = _try("profile", lambda: jax.profiler.start_trace(folder))
            with jax.profiler.StepTraceAnnotation("train", step_num=number):
                state = train_step(state, batch)
            if running and number == last:
                jax.block_until_ready(state)
                stop()
            return state

        try:
            yield step
        finally:
            if running:
                stop()

    @contextmanager
    def _mirror(self, workdir: Path, config: Mapping[str, Any]) -> Iterator[OnRecord]:
        runs: list[Any] = []  # empty once wandb has failed

        def start() -> None:
            import wandb

            first_line = (workdir / "runs.jsonl").read_bytes().split(b"\n")[0]
            run = wandb.init(
                project=self.wandb,
                dir=str(workdir),
                name=workdir.resolve().name,
                id=hashlib.sha256(first_line).hexdigest()[:16],
                resume="allow",
                config=dict(config),
            )
            runs.append(run)

        def on_record(record: Mapping[str, Any]) -> None:
            numbers = {k: v for k, v in record.items() if isinstance(v, int | float)}
            step = numbers.pop("step")
            if runs and not _try("wandb", lambda: runs[0].log(numbers, step=step)):
                runs.clear()

        _try("wandb", start)
        try:
            yield on_record
        finally:
            if runs:
                _try("wandb", runs[0].finish)


NOTHING = Watch()


def _try(what: str, act: Callable[[], Any]) -> bool:
    """Call `act` and return whether it worked; warn if it did not."""
    if error := error_of(act):
        log.warning("warning: no more of %s: %s", what, reason_of(error))
    return error is None
