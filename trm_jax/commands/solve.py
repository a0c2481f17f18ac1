# SPDX-License-Identifier: Apache-2.0
"""Solve one puzzle with a trained model and show every step of the way.

python solve.py --workdir=D [--puzzle=P] [--row=N] [--supervision_steps=S] [--votes=V]
                [--html=FILE] [--gif=FILE] [--json=FILE] [--step=N] [--weights=ema|raw]

--puzzle is a text or a file. Sudokus: cells row by row, `.` or 0 for a blank, on one or
more lines. Mazes: lines of `#`, space, S and G. Nonograms: `1 1/5/...|2/1/...`. ARC: a
task as a JSON file. --row=N chooses a question of the file, from 1; without --puzzle,
it chooses a row of the run's test set. --votes=V solves V forms of the puzzle and takes
the most frequent answer. --html writes a page that plays the reasoning, --gif a moving
picture, --json all numbers. Exit codes: 0 if the answer is valid or nothing judges it,
1 if it is not, 2 wrong input.
"""

import json
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from absl import flags

from trm_jax import api
from trm_jax.commands import shell
from trm_jax.errors import EXIT_FAILED, EXIT_OK, ConfigError, SaveError
from trm_jax.files import write_whole

if TYPE_CHECKING:
    from trm_jax.trained import Model

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
    text("puzzle", None, "The puzzle, as text or as a file.")
    number("row", None, "Question of the file, or row of the run's test set, from 1.")
    number(
        "supervision_steps",
        None,
        "Steps to take; default: the config's.",
        lower_bound=1,
    )
    number("votes", 1, "Forms of the puzzle that vote, 0 for all.", lower_bound=0)
    text("html", None, "Page to write.")
    text("gif", None, "Moving picture to write.")
    text("json", None, "File of all numbers to write.")
    number("step", None, "Checkpoint to use; the newest if unset.")
    choice("weights", "ema", ["ema", "raw"], "Averaged or raw weights.")
    user_errors = (api.pipeline("errors").DataError,)
    act = partial(_main, values, argv)
    return shell.call(act, values, argv, doc=__doc__, user_errors=user_errors)


def _main(values: flags.FlagValues, argv: Sequence[str]) -> int:
    """Restore the model, trace it on the puzzle, and judge the answer."""
    shell.parse_flags(values, argv)
    if not values.workdir:
        raise ConfigError("--workdir=FOLDER is missing")
    from trm_jax.commands import solve_show
    from trm_jax.trained import load

    shell.check_devices()
    model = load(values.workdir, step=values.step, weights=values.weights)
    shell.set_precision(model.config["model"]["dtype"])
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        record = _record(values, model)
    for message in dict.fromkeys(str(one.message) for one in warned):
        log.warning("warning: %s", message)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    log.info("%s", record["title"])
    for paragraph in solve_show.as_text(record, colour=colour):
        log.info("%s\n", paragraph)
    if record["votes"]:
        log.info("%s\n", solve_show.of_votes(record, colour=colour))
    line, good = solve_show.verdict(record)
    log.info("%s", line)
    _write(values, record)
    return EXIT_OK if good else EXIT_FAILED


def _record(values: flags.FlagValues, model: "Model") -> dict[str, Any]:
    """The trace of the chosen puzzle, and what the votes say."""
    from trm_jax.inspect.replay_record import as_record

    question, solution, name, title = _chosen_puzzle(values, model)
    steps = values.supervision_steps
    trace = model.trace(question, steps, task=name)
    votes, voted = values.votes, None
    if votes != 1:
        voted = model.solve(question, steps, votes, task=name)
    return as_record(
        trace,
        model.task,
        title=title,
        model={"about": repr(model)[1:-1], "weights": values.weights},
        solution=solution,
        voted=voted,
    )


def _chosen_puzzle(
    values: flags.FlagValues, model: "Model"
) -> tuple[Any, np.ndarray | None, str | None, str]:
    """The question, its answer's tokens, its task's name (or None), and a title."""
    task, row = model.task, 1 if values.row is None else values.row
    if values.puzzle is not None:
        question, answer, name = task.read(values.puzzle, row)
        file = api.pipeline("text_files").file_named(values.puzzle)
        title = f"{file.name}, question {row}" if file else "the puzzle"
        return question, None if answer is None else task.parse(answer), name, title
    test = task.load().test.puzzles
    if not 1 <= row <= len(test):
        error = api.pipeline("errors").DataError
        raise error(f"--row={row}; the test set has rows 1 to {len(test)}")
    answer = test.labels[row - 1]
    solution = answer if answer.any() else None
    name = task.name_of(row - 1)
    return test.inputs[row - 1], solution, name, f"row {row} of the test set"


def _write(values: flags.FlagValues, record: dict[str, Any]) -> None:
    """Write the files that the flags ask for."""
    if values.json:
        text = json.dumps(record, indent=1) + "\n"
        write_whole(Path(values.json), text, SaveError)
        log.info("written to %s", values.json)
    if values.gif:
        from trm_jax.inspect.gif import write_gif

        write_gif(record, values.gif)
        log.info("written to %s", values.gif)
