# SPDX-License-Identifier: Apache-2.0
"""Solve one puzzle with a trained model and show every step of the way.

python solve.py --workdir=D [--puzzle=5..3...] [--row=N] [--step=N] [--weights=ema|raw]

The puzzle is given cell by cell (`.` or `0` for a blank), or as row N of the run's test
set (row 1 if not told otherwise). Exit codes: 0 solved, 1
not solved, 2 wrong input.
"""

import logging
import math
import sys
from typing import Any

import numpy as np
from absl import flags

from data_pipeline import sources
from data_pipeline.errors import DataError
from data_pipeline.sudoku.grid import SudokuShape
from data_pipeline.sudoku.text import grid_lines, is_solution, parse_puzzle
from trm_jax.errors import ConfigError
from trm_jax.runtime import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
PUZZLE = flags.DEFINE_string("puzzle", None, "The cells, row by row; . for a blank.")
ROW = flags.DEFINE_integer("row", 1, "Row of the run's test set, from 1.")
STEP = flags.DEFINE_integer("step", None, "Checkpoint to use; the newest if unset.")
WEIGHTS = flags.DEFINE_enum("weights", "ema", ["ema", "raw"], "Averaged or raw.")
log = logging.getLogger("trm_jax.solve")


def chosen_puzzle(
    data: dict[str, Any], shape: SudokuShape
) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Question, answer if known, and what to call the puzzle."""
    if PUZZLE.value:
        return parse_puzzle(PUZZLE.value, shape), None, "the puzzle"
    test = sources.load(**data).test.puzzles
    row = ROW.value
    if not 1 <= row <= len(test):
        raise DataError(f"--row={row}; the test set has rows 1 to {len(test)}")
    return test.inputs[row - 1], test.labels[row - 1], f"row {row} of the test set"


def show(
    answer: np.ndarray,
    before: np.ndarray,
    question: np.ndarray,
    solution: np.ndarray | None,
    shape: SudokuShape,
) -> None:
    """One grid: givens bold, then right or wrong where the answer is known, or new."""

    def style(cell: int) -> str:
        if question[cell] > 1 and answer[cell] == question[cell]:
            return "given"
        if solution is not None:
            return "right" if answer[cell] == solution[cell] else "wrong"
        return "new" if answer[cell] != before[cell] else "plain"

    colour = sys.stdout.isatty()
    log.info("%s", "\n".join(grid_lines(answer, shape, style, colour=colour)))


def main() -> int:
    """Restore, solve step by step, judge."""
    if not WORKDIR.value:
        raise ConfigError("--workdir=FOLDER is missing")
    from trm_jax.evaluation.evaluate import answers_by_step
    from trm_jax.runtime.checkpoint import Checkpoints
    from trm_jax.runtime.workdir import read_run
    from trm_jax.training.build import build
    from trm_jax.training.sharding import put_batch

    config, identity = read_run(WORKDIR.value)
    data = config["data"]
    if data["task"] != "sudoku":
        raise ConfigError(
            f"{WORKDIR.value}: a run of task {data['task']!r}; expected sudoku"
        )
    shape = SudokuShape(data["box_rows"], data["box_cols"])
    question, solution, name = chosen_puzzle(data, shape)
    built = build(config | {"mesh": {"data": 1, "fsdp": 1}}, identity["sizes"])
    checkpoints = Checkpoints(WORKDIR.value)
    state = checkpoints.restore_step(built.state_like, STEP.value)
    params = state.ema_params if WEIGHTS.value == "ema" else state.params
    rows = {
        "inputs": question[None].astype(np.int32),
        "labels": np.zeros((1, len(question)), np.int32),
        "label_mask": np.zeros((1, len(question)), bool),
        "puzzle_id": np.zeros(1, np.int32),
        "weight": np.ones(1, np.float32),
    }
    log.info("%s", name)
    show(question, question, question, None, shape)
    answer = question
    answers = answers_by_step(
        built.model,
        (params, state.constants, state.puzzle_table),
        put_batch(rows, built.mesh),
        num_steps=config["model"]["max_supervision_steps"],
    )
    for step, (predictions, q_halt) in enumerate(answers, start=1):
        before, answer = answer, predictions[0]
        sure = 1 / (1 + math.exp(-min(50.0, max(-50.0, float(q_halt[0])))))
        log.info("\nsupervision step %d: sure of it to %.1f %%", step, 100 * sure)
        show(answer, before, question, solution, shape)
        if is_solution(answer, question, shape):
            log.info("solved in %d supervision step(s): no rule is broken", step)
            return cli.EXIT_OK
    log.info("not solved: the answer breaks a rule or leaves a blank")
    return cli.EXIT_FAILED


if __name__ == "__main__":
    cli.run(main, __doc__ or "", user_errors=(DataError,))
