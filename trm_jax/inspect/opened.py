# SPDX-License-Identifier: Apache-2.0
"""What the commands share that report on a run: its test puzzles, and their files."""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax

from trm_jax.beside import pipeline
from trm_jax.errors import CheckpointError, ConfigError, SaveError
from trm_jax.evaluation.evaluate import Numbered, Weights
from trm_jax.files import write_whole
from trm_jax.rules.base import innermost
from trm_jax.runtime.weights import on_one_device, read_weights
from trm_jax.runtime.workdir import read_run, read_test_set
from trm_jax.training.build import Built, build
from trm_jax.types import Batch

Report = dict[str, Any]


class Opened(NamedTuple):
    """A run on one device, with its averaged weights and its first test puzzles."""

    built: Built
    weights: Weights
    batches: list[Numbered]  # of one size; the last is padded with rows of weight 0
    training_loops: int  # the most that a row has in training
    facts: Report  # what every report says of the run

    @property
    def rows(self) -> list[Batch]:
        """The batches, without the numbers of their rows."""
        batches: list[Any] = [fields for fields, _ in self.batches]
        return [Batch(**fields) for fields in batches]

    @property
    def loops(self) -> int:
        """How many loops are measured by default."""
        return 4 * self.training_loops


@contextmanager
def opened(
    workdir: str | Path, *, step: int | None = None, rows: int
) -> Iterator[Opened]:
    """A checkpoint of a run (None: the newest) and its first test puzzles, as they are.

    A loop is a supervision step of an evaluation. Raises the errors of reading a run
    and its data, also if its test set has changed.
    """
    config, identity = read_run(workdir)
    config = on_one_device(config)
    with jax.enable_x64(config["model"]["dtype"] == "float64"):
        built = build(config, identity["sizes"])
        step, weights = read_weights(workdir, built, step, "ema")
        test = read_test_set(f"{workdir}/dataset.json", config, identity)
        batches = first_puzzles(config, test, rows)
        most: int = built.run.halting.max_supervision_steps
        training_loops = most * int(getattr(innermost(built.recipe.rule), "loops", 1))
        facts = {
            "workdir": Path(workdir).resolve().name,
            "step": step,
            "rule": config["rule"]["name"],
            "layers": list(config["model"]["layers"]),
            "rows": int(sum((fields["weight"] > 0).sum() for fields, _ in batches)),
            "training_loops": training_loops,
        }
        yield Opened(built, weights, batches, training_loops, facts)


def first_puzzles(config: dict[str, Any], test: Any, rows: int) -> list[Numbered]:
    """The first puzzles of a test set, as they are, in batches of one size."""
    questions = test.questions(votes=1, max_puzzles=rows)
    size = min(config["eval"]["batch_size"], questions.num_rows)
    return [*questions.batches(size)]


def command(
    module: str,
    argv: list[str],
    *,
    count: str,
    report: Callable[..., Report],
    draw: Callable[[Report, Path], None],
    as_text: Callable[[Report], str],
) -> int:
    """Run `python -m trm_jax.inspect.MODULE` as the command line says.

    WORKDIR/MODULE or the folder `--out` gets the report as JSON and its figure. `count`
    names the flag with the number of loops. Wrong input is one line and exit code 2.
    """
    parser = argparse.ArgumentParser(prog=f"python -m trm_jax.inspect.{module}")
    parser.add_argument("workdir")
    parser.add_argument("--step", type=int, help="the checkpoint; default: the newest")
    parser.add_argument(
        f"--{count}", type=int, help="default: 4 times those of training"
    )
    parser.add_argument("--rows", type=int, default=512, help="test puzzles")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args(argv)
    for name in (count, "rows"):
        if (value := getattr(args, name)) is not None and value < 2:
            parser.error(f"--{name} = {value}; expected 2 or more")
    errors = (ConfigError, CheckpointError, pipeline("errors").DataError, OSError)
    chosen = {name: getattr(args, name) for name in ("step", count, "rows")}
    try:
        found = report(args.workdir, **chosen)
        out = args.out or Path(args.workdir) / module
        out.mkdir(parents=True, exist_ok=True)
        path = out / f"step_{found['step']}.json"
        write_whole(path, json.dumps(found, indent=1) + "\n", SaveError)
        draw(found, path.with_suffix(".png"))
        picture = path.with_suffix(".png").name
        pipeline("console").say(f"{as_text(found)}\nwritten to {path} and {picture}\n")
    except errors as error:
        parser.error(str(error))
    return 0
