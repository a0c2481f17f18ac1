# SPDX-License-Identifier: Apache-2.0
"""Solve one puzzle with a trained model and show every step of the way.

python solve.py [--workdir=D | --weights_file=W] [--puzzle=P] [--row=N]
                [--supervision_steps=S] [--votes=V] [--step=N] [--weights=ema|raw]
                [--html=FILE] [--gif=FILE] [--json=FILE]

Without arguments, weights that come with the package solve a puzzle of theirs. W is any
weights that `trm_jax.load` knows: an exported folder or file, the name of shipped
weights, a published PyTorch file.

--puzzle is a text or a file. Sudokus: cells row by row, `.` or 0 for a blank, on one or
more lines. Mazes: lines of `#`, space, S and G. Nonograms: `1 1/5/...|2/1/...`. ARC: a
task as a JSON file. --row=N chooses a question of the file, from 1; without --puzzle,
it chooses a row of the run's test set, or of puzzles.txt beside the weights. --votes=V
solves V forms of the puzzle and takes the most frequent answer. --html writes a page
that plays the reasoning, --gif a moving picture, --json all numbers. Exit codes: 0 if
the answer is valid or nothing judges it, 1 if it is not, 2 wrong input.
"""

import json
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from absl import flags

from trm_jax import api
from trm_jax.commands import shell
from trm_jax.errors import EXIT_FAILED, EXIT_OK, ConfigError
from trm_jax.files import check_target, write_whole

if TYPE_CHECKING:
    from trm_jax.trained import Model

# The tokens of a question and of its answer, the name of its task, and a title.
Chosen = tuple[np.ndarray, np.ndarray | None, str | None, str]
SHIPPED = "sudoku_9x9"  # the weights that are used without arguments
PUZZLES = "puzzles.txt"  # beside exported weights: questions, one per line
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
    text("weights_file", None, "Weights of any kind, or their name.")
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
    choice("weights", None, ["ema", "raw"], "Averaged or raw; default: averaged.")
    user_errors = (api.pipeline("errors").DataError,)
    act = partial(_main, values, argv)
    return shell.call(act, values, argv, doc=__doc__, user_errors=user_errors)


def _main(values: flags.FlagValues, argv: Sequence[str]) -> int:
    """Restore the model, trace it on the puzzle, and judge the answer."""
    shell.parse_flags(values, argv)
    from trm_jax.commands import solve_show
    from trm_jax.loading import load

    place, kind = _place(values)
    for target in filter(None, (values.html, values.gif, values.json)):
        check_target(Path(target), ConfigError)
    chosen = None
    if values.workdir:  # wrong puzzles are refused before anything is restored
        from trm_jax.runtime.workdir import read_run, read_test_set

        run = read_run(place)
        task = api.pipeline("tasks").task_of(run[0]["data"])
        test_set = partial(read_test_set, f"{place}/dataset.json", *run)
        chosen = _chosen_puzzle(values, task, place, test_set)
    shell.check_devices()
    model = load(place, step=values.step, weights=kind)
    shell.set_precision(model.config["model"]["dtype"])
    chosen = chosen or _chosen_puzzle(values, model.task, place)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        record = _record(values, model, *chosen)
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


def _place(values: flags.FlagValues) -> tuple[Path, str | None]:
    """Where the weights are, and which of them to take; None: what a file holds."""
    from trm_jax.weights import places

    if values.workdir and values.weights_file:
        raise ConfigError("--workdir and --weights_file exclude each other")
    if values.workdir:
        return Path(values.workdir), values.weights or "ema"
    for name in ("step", "weights"):
        if values[name].value is not None:
            raise ConfigError(f"--{name} needs --workdir=FOLDER: other weights are one")
    return places.find(values.weights_file or SHIPPED), None


def _record(
    values: flags.FlagValues,
    model: "Model",
    question: np.ndarray,
    solution: np.ndarray | None,
    name: str | None,
    title: str,
) -> dict[str, Any]:
    """The trace of the chosen puzzle, and what the votes say."""
    from trm_jax.inspect.replay_record import as_record

    steps, votes, voted = values.supervision_steps, values.votes, None
    trace = model.trace(question, steps, task=name)
    if votes != 1:
        voted = model.solve(question, steps, votes, task=name)
    return as_record(
        trace,
        model.task,
        title=title,
        model=model.facts(),
        solution=solution,
        voted=voted,
    )


def _chosen_puzzle(
    values: flags.FlagValues,
    task: Any,
    place: Path,
    test_set: Callable[[], Any] | None = None,
) -> Chosen:
    """The puzzle that --puzzle and --row name; a run's row is one of `test_set()`."""
    row = 1 if values.row is None else values.row
    puzzle, own = values.puzzle, place / PUZZLES
    if puzzle is None and own.exists():
        puzzle = str(own)
    if puzzle is not None:
        question, answer, name = task.read(puzzle, row)
        file = api.pipeline("text_files").file_named(puzzle)
        title = f"{file.name}, question {row}" if file else "the puzzle"
        solution = None if answer is None else task.parse(answer)
        return task.parse(question), solution, name, title
    test = (test_set() if test_set else task.load().test).puzzles
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
        write_whole(Path(values.json), text, ConfigError)
        log.info("written to %s", values.json)
    if values.html:
        from trm_jax.inspect.replay import page

        write_whole(Path(values.html), page(record), ConfigError)
        log.info("written to %s", values.html)
    if values.gif:
        from trm_jax.inspect.gif import write_gif

        write_gif(record, values.gif)
        log.info("written to %s", values.gif)
