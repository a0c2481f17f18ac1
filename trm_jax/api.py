# SPDX-License-Identifier: Apache-2.0
"""Data pipeline and model joined: what the commands call, and other programs may."""

import importlib
import importlib.util
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trm_jax.runtime import processes
from trm_jax.runtime.lock import WorkdirLock

if TYPE_CHECKING:
    from trm_jax.evaluation.judge import Questions
    from trm_jax.runtime.trainer import OnBatch
    from trm_jax.training.build import Built
    from trm_jax.training.config import RunSettings
    from trm_jax.types import Batch, TrainState

log = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]  # done, total, unit


def pipeline(module: str) -> Any:
    """A module of the data pipeline, such as "tasks"."""
    return _beside("data_pipeline", module)


def default_config() -> Any:
    """The config that every other config edits, as a ConfigDict."""
    return _beside("configs", "default").get_config()


def _beside(package: str, module: str) -> Any:
    """A module of a package that a checkout has beside trm_jax and a wheel inside."""
    inside = f"{__package__}.{package}"
    found = inside if importlib.util.find_spec(inside) else package
    return importlib.import_module(f"{found}.{module}")


def sizes_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes that config.data determines; only for ARC is a file read."""
    return pipeline("tasks").spec_of(config["data"]).sizes


def num_eval_steps(run: "RunSettings") -> int:
    """The supervision steps that an evaluation gives each puzzle."""
    return run.eval.supervision_steps or run.halting.max_supervision_steps


def train(
    config: Mapping[str, Any],
    workdir: str | Path,
    *,
    stop_requested: Callable[[], bool] = lambda: False,
    progress: Progress = lambda done, total, unit: None,
) -> "TrainState":
    """Train to the last step in `workdir`, or resume the run that is there.

    `stop_requested` is asked after every step; several processes must have joined
    before. `progress(done, total, unit)` is called after every step and batch.

    Raises:
      ConfigError, DataError: wrong settings or data, or another run has the workdir.
      Stopped: a stop was requested; the state has been saved.
      FloatingPointError: a metric is not finite; see config.train.on_non_finite.
      CheckpointError: no intact checkpoint, or (SaveError) a save failed.
    """
    from trm_jax.runtime import workdir as workdirs
    from trm_jax.training.build import build

    lock = WorkdirLock(workdir)
    # A run that goes on there is found before the data is read.
    processes.on_first(lock.look, "look at the lock")
    data = pipeline("tasks").load(config["data"])
    for warning in data.warnings:
        log.warning("warning: %s", warning)
    built = build(config, data.spec.sizes)
    hooks: dict[str, Any] = {
        "batches": _training(config, data, built),
        "evaluate": _evaluation(config, data, built, progress),
        "on_step": lambda k: progress(k, config["train"]["steps"], "steps"),
        "stop_requested": processes.agreed(stop_requested),
    }
    processes.check_same(json.dumps(data.identity, indent=1), "data")
    # Files are written from here on: wrong settings or data leave none behind.
    with lock:
        processes.on_first(
            lambda: workdirs.claim(workdir, config, data.identity), "claim"
        )
        check = partial(processes.on_first, lock.check, "check of the lock")
        return _run(config, workdir, built, hooks | {"before_save": check})


def _run(
    config: Mapping[str, Any],
    workdir: str | Path,
    built: "Built",
    hooks: dict[str, Any],
) -> "TrainState":
    """Restore the newest state or begin, and run the loop with these `hooks`."""
    from trm_jax.runtime import trainer
    from trm_jax.runtime import workdir as workdirs
    from trm_jax.runtime.checkpoint import Checkpoints
    from trm_jax.runtime.metric_writer import MetricWriter
    from trm_jax.runtime.non_finite import Guard

    settings = config["train"]
    with closing(Checkpoints(workdir, keep=settings["keep_checkpoints"])) as saved:
        state = saved.restore_newest(built.state_like) or built.init()
        step = int(state.step)
        processes.on_first(lambda: workdirs.record_run(workdir, step), "record")
        log.info("%s: step %d of %d", workdir, step, settings["steps"])
        loop = trainer.Trainer(
            train_step=built.train_step,
            checkpoints=saved,
            writer=MetricWriter(workdir, step=step),
            guard=Guard(workdir, seed=config["seed"]),
            settings=built.run.train,
            schedule=built.recipe.optim.schedule,
            **hooks,
        )
        return loop.run(state)


def _training(
    config: Mapping[str, Any], data: Any, built: "Built"
) -> "Callable[[int, int], Iterator[Batch]]":
    """What loads the batches first to last - 1, on the mesh."""
    from trm_jax.training.sharding import own_rows, put_batch

    loader, batch_size = pipeline("loader"), config["train"]["batch_size"]
    batch = loader.TrainLoader(
        data.train,
        batch_size=batch_size,
        seed=config["seed"],
        variants=data.train_variants,
        rows=own_rows(built.mesh, batch_size),
    )

    def batches(first: int, last: int) -> "Iterator[Batch]":
        for rows in loader.prefetched(batch, first, last):
            yield put_batch(rows, built.mesh)

    return batches


def _evaluation(
    config: Mapping[str, Any], data: Any, built: "Built", progress: Progress
) -> "Callable[[TrainState, OnBatch], dict[str, Any]]":
    """What scores a state on the test set, and calls back after each batch."""
    from trm_jax.evaluation import evaluate
    from trm_jax.evaluation.judge import Judge

    asked = config["eval"]
    eval_step = evaluate.make_eval_step(
        built.recipe,
        built.mesh,
        num_steps=num_eval_steps(built.run),
        seed=built.run.eval.seed,
    )
    questions: Questions = data.test.questions(
        votes=asked["votes"], max_puzzles=asked["max_puzzles"]
    )
    judge = Judge(questions, votes=asked["votes"])

    def score(state: "TrainState", on_batch: "OnBatch") -> dict[str, Any]:
        def show(rows: int) -> None:
            progress(rows, questions.num_rows, "puzzles")
            on_batch(rows)

        weights = state.ema_params, state.constants, state.puzzle_table
        rows = questions.batches(asked["batch_size"])
        parts = evaluate.evaluate(eval_step, weights, rows, built.mesh)
        return judge.scores(parts, show)

    return score
