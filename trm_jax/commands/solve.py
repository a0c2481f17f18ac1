# SPDX-License-Identifier: Apache-2.0
"""Solve one Sudoku with a trained model and show every step of the way.

python solve.py --workdir=D [--puzzle=5..3...] [--row=N] [--step=N] [--weights=ema|raw]

--puzzle has the cells row by row (`.` or `0` for a blank). Without it, the puzzle is
row N of the run's test set, 1 by default. Exit codes: 0 solved, 1 not solved, 2 wrong
input.
"""

import logging
import math
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NoReturn

import numpy as np
from absl import flags

from trm_jax import api
from trm_jax.commands import shell
from trm_jax.errors import EXIT_FAILED, EXIT_OK, ConfigError

log = logging.getLogger(__name__)


def run() -> NoReturn:
    """Run solve.py as this process."""
    shell.run(main)


def main(argv: Sequence[str]) -> int:
    """Solve the puzzle that the arguments after argv[0] name; return the exit code."""
    values = flags.FlagValues()
    text, number = (
        partial(define, flag_values=values)
        for define in (flags.DEFINE_string, flags.DEFINE_integer)
    )
    choice = partial(flags.DEFINE_enum, flag_values=values)
    text("workdir", None, "Folder of the run.")
    text("puzzle", None, "The cells, row by row; . for a blank.")
    number("row", None, "Row of the run's test set, from 1; default: 1.")
    number("step", None, "Checkpoint to use; the newest if unset.")
    choice("weights", "ema", ["ema", "raw"], "Averaged or raw weights.")
    user_errors = (api.pipeline("errors").DataError,)
    act = partial(_main, values, argv)
    return shell.call(act, values, argv, doc=__doc__, user_errors=user_errors)


def _main(values: flags.FlagValues, argv: Sequence[str]) -> int:
    """Restore the model, solve the puzzle step by step, and check the answer."""
    shell.parse_flags(values, argv)
    if not values.workdir:
        raise ConfigError("--workdir=FOLDER is missing")
    from trm_jax.runtime.workdir import read_run

    config, identity = read_run(values.workdir)
    data = config["data"]
    if data["task"] != "sudoku":
        raise ConfigError(
            f"{values.workdir}: a run of task {data['task']!r}; expected sudoku"
        )
    shell.set_precision(config["model"]["dtype"])
    shell.check_devices()
    box = data["sudoku"]["box_rows"], data["sudoku"]["box_cols"]
    shape = api.pipeline("sudoku.grid").SudokuShape(*box)
    question, solution, name = _chosen_puzzle(values, data, shape)
    answers = _answers(values, config, identity, question)
    show, answer = partial(_show, question, solution, shape), question
    log.info("%s", name)
    show(question, question)
    for step, (predictions, q_halt) in enumerate(answers, start=1):
        before, answer = answer, predictions[0]
        sure = 1 / (1 + math.exp(-min(50.0, max(-50.0, float(q_halt[0])))))
        log.info("\nsupervision step %d: sure of it to %.1f %%", step, 100 * sure)
        show(answer, before)
        if api.pipeline("sudoku.text").is_solution(answer, question, shape):
            log.info("solved in %d supervision step(s): no rule is broken", step)
            return EXIT_OK
    log.info("not solved: the answer breaks a rule or leaves a blank")
    return EXIT_FAILED


def _chosen_puzzle(
    values: flags.FlagValues, data: dict[str, Any], shape: Any
) -> tuple[np.ndarray, np.ndarray | None, str]:
    """The question, its answer if known, and a name for the puzzle."""
    if values.puzzle is not None and values.row is not None:
        raise ConfigError("--puzzle and --row exclude each other")
    if values.puzzle is not None:
        parse = api.pipeline("sudoku.text").parse_puzzle
        return parse(values.puzzle, shape), None, "the puzzle"
    test = api.pipeline("tasks").load(data).test.puzzles
    row = 1 if values.row is None else values.row
    if not 1 <= row <= len(test):
        error = api.pipeline("errors").DataError
        raise error(f"--row={row}; the test set has rows 1 to {len(test)}")
    return test.inputs[row - 1], test.labels[row - 1], f"row {row} of the test set"


def _answers(
    values: flags.FlagValues,
    config: dict[str, Any],
    identity: dict[str, Any],
    question: np.ndarray,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Predictions `1 m` and q_halt `1` after each supervision step."""
    from trm_jax.evaluation.evaluate import answers_by_step
    from trm_jax.runtime.weights import read_weights
    from trm_jax.training.build import build
    from trm_jax.training.sharding import put_batch

    built = build(config | {"mesh": {"data": 1, "fsdp": 1}}, identity["sizes"])
    _, weights = read_weights(values.workdir, built, values.step, values.weights)
    rows = {
        "inputs": question[None].astype(np.int32),
        "labels": np.zeros((1, len(question)), np.int32),
        "label_mask": np.zeros((1, len(question)), bool),
        "puzzle_id": np.zeros(1, np.int32),
        "weight": np.ones(1, np.float32),
    }
    return answers_by_step(
        built.recipe,
        weights,
        put_batch(rows, built.mesh),
        num_steps=built.run.num_eval_steps,
        seed=built.run.eval.seed,
    )


def _show(
    question: np.ndarray,
    solution: np.ndarray | None,
    shape: Any,
    answer: np.ndarray,
    before: np.ndarray,
) -> None:
    """Log a grid with marked givens and correct cells (if unknown: changed cells)."""

    def style(cell: int) -> str:
        if question[cell] > 1 and answer[cell] == question[cell]:
            return "given"
        if solution is not None:
            return "right" if answer[cell] == solution[cell] else "wrong"
        return "new" if answer[cell] != before[cell] else "plain"

    lines = api.pipeline("sudoku.text").grid_lines(
        answer, shape, style, colour=sys.stdout.isatty()
    )
    log.info("%s", "\n".join(lines))
