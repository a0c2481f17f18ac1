# SPDX-License-Identifier: Apache-2.0
"""Train a model, or resume it where it stopped.

python train.py --config=configs/X.py[:variant] --workdir=D [--config.a.b=v] [--dry_run]
                [--distributed | --coordinator=H:P --num_processes=N --process_id=I]

The same workdir and config resume by themselves. Exit codes: 0 done, 2 wrong input or
config, 75 stopped and resumable, 1 otherwise.
"""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from configs import default
from data_pipeline import loader, sources
from data_pipeline.errors import DataError
from trm_jax.errors import ConfigError
from trm_jax.runtime import cli, processes
from trm_jax.runtime.command_line import resolved_config
from trm_jax.runtime.lock import WorkdirLock

if TYPE_CHECKING:
    from data_pipeline.data import Data
    from trm_jax.runtime.trainer import OnBatch
    from trm_jax.training.build import Built
    from trm_jax.types import Batch, TrainState

CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, see configs/.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of this run.")
DRY_RUN = flags.DEFINE_bool(
    "dry_run", False, "Print sizes, FLOPs, memory and the resolved config, as JSON."
)
DETERMINISTIC = flags.DEFINE_bool(
    "deterministic", False, "The same bits in every run, on a GPU too; slower there."
)
cli.define_process_flags()
log = logging.getLogger("trm_jax.train")


def main() -> int:
    """Parse, then train. JAX is imported late: wrong flags are told at once."""
    config = resolved_config(CONFIG, like=default.get_config())
    if DETERMINISTIC.value:  # read when JAX is first used
        deterministic = "--xla_gpu_deterministic_ops=true"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {deterministic}"
    if DRY_RUN.value:
        return dry_run(config)
    if not WORKDIR.value:
        raise ConfigError("--workdir=FOLDER is missing")
    return train(config, WORKDIR.value)


def dry_run(config: ConfigDict) -> int:
    """Print what the run would cost; reads no data and writes no file."""
    from trm_jax.training.build import build
    from trm_jax.training.cost import dry_run_report

    built = build(config.to_dict(), sources.spec_of(**config.data).sizes)
    report = dry_run_report(built) | {"config": config.to_dict()}
    sys.stdout.write(json.dumps(report, indent=2) + "\n")
    return cli.EXIT_OK


def train(config: ConfigDict, workdir: str) -> int:
    """Run in `workdir`, which no other run may have."""
    stop = cli.StopSignal()  # first: the imports take their time
    cli.join_processes()
    with WorkdirLock(workdir) as lock:  # before them, too: a refusal comes at once
        processes.before_end(lock.release)
        return train_locked(config, workdir, stop, lock)


def train_locked(
    config: ConfigDict, workdir: str, stop: cli.StopSignal, lock: WorkdirLock
) -> int:
    """Join data and model, and run the loop in `workdir`."""
    from trm_jax.runtime import trainer
    from trm_jax.runtime import workdir as workdirs
    from trm_jax.runtime.checkpoint import Checkpoints
    from trm_jax.runtime.metric_writer import MetricWriter
    from trm_jax.runtime.non_finite import Guard, Rollbacks
    from trm_jax.training.build import build

    data = sources.load(**config.data)
    for warning in data.warnings:
        log.warning("warning: %s", warning)
    built = build(config.to_dict(), data.spec.sizes)
    batches = training(config, data, built)
    score = evaluation(config, data, built)
    processes.check_same(json.dumps(data.identity, indent=1), "data")
    workdirs.claim(workdir, config.to_dict(), data.identity)
    rollbacks = Rollbacks(workdir)
    guard = Guard(
        workdir,
        policy=config.train.on_non_finite,
        seed=config.seed,
        rollbacks=rollbacks,
    )
    with closing(Checkpoints(workdir, keep=config.train.keep_checkpoints)) as saved:
        processes.enter("restore")
        state = saved.restore_newest(built.state_like) or built.init()
        step = int(state.step)
        workdirs.record_run(workdir, step)
        log.info("%s: step %d of %d", workdir, step, config.train.steps)
        loop = trainer.Trainer(
            train_step=built.train_step,
            batches=partial(batches, rollbacks.batch_number),
            evaluate=score,
            checkpoints=saved,
            restore=lambda: saved.restore_newest(built.state_like),
            open_writer=lambda step: MetricWriter(workdir, step=step),
            guard=guard,
            cadence=trainer.Cadence.from_section(config.train.to_dict()),
            schedule=built.optim.schedule,
            on_save_error=config.train.on_save_error,
            before_save=lock.check,
            stop_requested=processes.agreed(stop),
            on_step=lambda k: cli.BAR.update(k, config.train.steps, "steps"),
        )
        try:
            loop.run(state)
        except trainer.Stopped as stopped:
            log.info("%s", stopped)
            return cli.EXIT_STOPPED
    return cli.EXIT_OK


def training(
    config: ConfigDict, data: "Data", built: "Built"
) -> "Callable[[Callable[[int], int], int, int], Iterator[Batch]]":
    """What loads batches `number(k)` for k from first to last - 1, on the mesh."""
    from trm_jax.training.sharding import own_rows, put_batch

    batch = loader.TrainLoader(
        data.train,
        batch_size=config.train.batch_size,
        seed=config.seed,
        variants=data.train_variants,
        rows=own_rows(built.mesh, config.train.batch_size),
    )

    def batches(
        number: Callable[[int], int], first: int, last: int
    ) -> "Iterator[Batch]":
        for rows in loader.prefetched(lambda k: batch(number(k)), first, last):
            yield put_batch(rows, built.mesh)

    return batches


def evaluation(
    config: ConfigDict, data: "Data", built: "Built"
) -> "Callable[[TrainState, OnBatch], dict[str, Any]]":
    """What scores a state on the test set; it tells the rows done after each batch."""
    from judge import Judge
    from trm_jax.evaluation import evaluate

    steps = config.eval.supervision_steps or config.model.max_supervision_steps
    eval_step = evaluate.make_eval_step(
        built.model, built.mesh, num_steps=steps, loss=config.train.loss
    )
    judge = Judge(
        data.test,
        votes=config.eval.votes,
        num_puzzles=data.spec.num_puzzles,
        max_puzzles=config.eval.max_puzzles,
    )

    def score(state: "TrainState", on_batch: "OnBatch") -> dict[str, Any]:
        def show(rows: int) -> None:
            cli.BAR.update(rows, judge.num_rows, "puzzles")
            on_batch(rows)

        cli.BAR.clear()
        weights = state.ema_params, state.constants, state.puzzle_table
        rows = judge.batches(config.eval.batch_size)
        parts = evaluate.evaluate(eval_step, weights, rows, built.mesh)
        scores = judge.scores(parts, show)
        cli.BAR.clear()
        return scores

    return score


if __name__ == "__main__":
    cli.run(main, __doc__ or "", user_errors=(DataError,))
