# SPDX-License-Identifier: Apache-2.0
"""Data pipeline and model joined: functions for the commands and other programs."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trm_jax.beside import get_config, is_shipped, pipeline, sizes_of
from trm_jax.errors import error_of
from trm_jax.runtime import processes
from trm_jax.runtime.interrupts import interrupts
from trm_jax.runtime.lock import WorkdirLock
from trm_jax.runtime.watch import NOTHING, Watch

if TYPE_CHECKING:
    from trm_jax.evaluation.judge import Questions
    from trm_jax.runtime.trainer import OnBatch
    from trm_jax.trained import Model
    from trm_jax.training.build import Built
    from trm_jax.types import Batch, TrainState
    from trm_jax.warm_start import WarmStart

__all__ = ["get_config", "is_shipped", "pipeline", "run", "sizes_of", "train"]
log = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]  # done, total, unit


def train(
    config: Any,
    workdir: str | Path,
    *,
    init_from: str | Path | None = None,
    init_table: str = "keep",
) -> "Model":
    """Train in this process to the last step, or resume the run of `workdir`.

    `config` is a ConfigDict, as `get_config` returns it, or a dict of the same keys.
    `init_from` and `init_table` are those of `run`.
    After the first Ctrl-C or SIGTERM, the run finishes its step, saves and raises
    Stopped; the same call resumes it. A second signal raises KeyboardInterrupt. The
    previous signal handlers are restored at the end. Outside the main thread, signals
    are not handled. The logger "trm_jax" reports progress at level INFO.

    Raises the errors of `run`.
    """
    import jax

    from trm_jax.loading import load

    values = config.to_dict() if hasattr(config, "to_dict") else config
    x64 = jax.enable_x64(values["model"]["dtype"] == "float64")
    with x64, interrupts() as stop_requested:
        run(
            values,
            workdir,
            stop_requested=stop_requested,
            init_from=init_from,
            init_table=init_table,
        )
    return load(workdir)


def run(
    config: Mapping[str, Any],
    workdir: str | Path,
    *,
    stop_requested: Callable[[], bool] = lambda: False,
    progress: Progress = lambda done, total, unit: None,
    init_from: str | Path | None = None,
    init_table: str = "keep",
    watch: Watch = NOTHING,
) -> "TrainState":
    """Train to the last step in `workdir`, or resume the run that is there.

    A new run starts with the weights of `init_from`, any place that `trm_jax.load`
    knows. `init_table` says what becomes of its puzzle table: keep | mean | reset.

    `stop_requested()` is called after every step, and `progress(done, total, unit)`
    after every step and every batch of an evaluation. In a run of several processes,
    the processes must have joined before this call. `watch` says who observes the run.

    Raises:
      ConfigError, DataError: wrong settings or data, or another run has the workdir.
      Stopped: a stop was requested; the state has been saved.
      FloatingPointError: a metric is not finite; see config.train.on_non_finite.
      CheckpointError: no intact checkpoint, or (SaveError) a save failed.
    """
    from trm_jax.model.network import halts_blindly
    from trm_jax.runtime import workdir as workdirs
    from trm_jax.training.build import build
    from trm_jax.training.cost import check_memory, summary
    from trm_jax.warm_start import WarmStart

    lock = WorkdirLock(workdir)
    # Another run in the workdir is detected before the data is read.
    processes.on_first(lock.look, "look at the lock")
    start = WarmStart(workdir, init_from, init_table)
    log.info("reading the puzzles ...")
    data = pipeline("tasks").load(config["data"])
    for warning in data.warnings:
        log.warning("warning: %s", warning)
    built = build(config, data.spec.sizes)
    check_memory(built)
    if halts_blindly(built.recipe.model.config):
        log.warning(
            "warning: the halting logit sees no cell, since no layer of model.layers "
            "shows the first position any: it depends on puzzle id and step alone. "
            "halting.halt_position = 'last' or 'mean' sees the grid"
        )
    forms = 1 + config["data"]["num_augmentations"]
    for line in summary(config, built):
        log.info("%s", line)
    puzzles = "puzzles  %s to train on, in %s form(s); %s test puzzles"
    counts = len(data.train), forms, len(data.test.puzzles)
    log.info(puzzles, *map("{:,}".format, counts))
    hooks: dict[str, Any] = {
        "batches": _training(config, data, built),
        "evaluate": _evaluation(config, data, built, progress),
        "on_step": lambda k: progress(k, config["train"]["steps"], "steps"),
        "stop_requested": processes.agreed(stop_requested),
    }
    processes.check_same(json.dumps(data.identity, indent=1), "data")
    read = partial(start.prepare, built, workdirs.has_checkpoint(workdir))
    processes.agree(error_of(read), "reading of the initial weights")
    processes.check_same(json.dumps(start.record), "initial weights")
    # Files are written only from here on: wrong settings or data leave none behind.
    with lock:
        processes.on_first(start.claim, "record of the initial weights")
        processes.on_first(
            lambda: workdirs.claim(workdir, config, data.identity), "claim"
        )
        check = partial(processes.on_first, lock.check, "check of the lock")
        hooks["before_save"] = check
        return _run(config, workdir, built, start, hooks, watch)


def _run(
    config: Mapping[str, Any],
    workdir: str | Path,
    built: "Built",
    start: "WarmStart",
    hooks: dict[str, Any],
    watch: Watch,
) -> "TrainState":
    """Restore the newest state or initialise one, and run the loop with `hooks`."""
    from trm_jax.runtime import trainer
    from trm_jax.runtime import workdir as workdirs
    from trm_jax.runtime.checkpoint import Checkpoints
    from trm_jax.runtime.metric_writer import MetricWriter
    from trm_jax.runtime.non_finite import Guard
    from trm_jax.training.cost import flops_counter

    settings = config["train"]
    with closing(Checkpoints(workdir, keep=settings["keep_checkpoints"])) as saved:
        state = saved.restore_newest(built.state_like) or start.state(built)
        step = int(state.step)
        if step < settings["steps"]:
            saved.try_to_save(state)
        processes.on_first(
            lambda: workdirs.record_run(workdir, step, start.record), "record"
        )
        log.info("%s: step %d of %d", workdir, step, settings["steps"])
        log.info("metrics.jsonl, events/ (TensorBoard) and checkpoints/ are there")
        if step < settings["steps"]:
            log.info("compiling the training step, or taking it from the cache ...")
        loop = trainer.Trainer(
            train_step=built.train_step,
            checkpoints=saved,
            writer=MetricWriter(
                workdir, step=step, committed=saved.records.get("metrics.jsonl")
            ),
            guard=Guard(workdir, seed=config["seed"]),
            settings=built.run.train,
            schedule=built.recipe.optim.schedule,
            flops=flops_counter(built),
            seconds_before=saved.records.get(trainer.SECONDS) if step else 0.0,
            **hooks,
        )
        with watch.observing(loop, workdir, config, step):
            return loop.run(state)


def _training(
    config: Mapping[str, Any], data: Any, built: "Built"
) -> "Callable[[int, int], Iterator[Batch]]":
    """A function that yields batches first to last - 1, sharded over the mesh."""
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
    """A function that scores a state on the test set, with a call after each batch."""
    from trm_jax.evaluation import evaluate
    from trm_jax.evaluation.judge import Judge

    asked = config["eval"]
    eval_step = evaluate.make_eval_step(
        built.recipe,
        built.mesh,
        num_steps=built.run.num_eval_steps,
        seed=built.run.eval.seed,
    )
    questions: Questions = data.test.questions(
        votes=asked["votes"], max_puzzles=asked["max_puzzles"]
    )
    judge = Judge(questions, votes=asked["votes"])

    def score(state: "TrainState", on_batch: "OnBatch") -> dict[str, Any]:
        log.info("step %d: evaluating %d rows ...", state.step, questions.num_rows)

        def show(rows: int) -> None:
            progress(rows, questions.num_rows, "puzzles")
            on_batch(rows)

        weights = state.ema_params, state.constants, state.puzzle_table
        rows = questions.batches(asked["batch_size"])
        parts = evaluate.evaluate(eval_step, weights, rows, built.mesh)
        return judge.scores(parts, show)

    return score
