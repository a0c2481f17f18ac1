# SPDX-License-Identifier: Apache-2.0
"""Prepares mazes: `python -m data_pipeline.prepared.maze_hard.prepare --help`.

Exit code 0 means that the data set was prepared and read back: facts go to stdout,
warnings to stderr. Exit code 2 means that it was not.
"""

import argparse

from ... import console
from ...maze.grid import MazeShape
from .. import writing
from .names import DEFAULT_SHAPE, NAME, prepared_set


def main(argv: list[str]) -> int:
    """Prepares by command line; returns the exit code."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--side", type=int, default=DEFAULT_SHAPE.side)
    return writing.run(
        writing.puzzle_parser(NAME, common, "maze"),
        argv,
        lambda options: prepared_set(MazeShape(options.pop("side"))),
        writing.puzzle_facts,
    )


if __name__ == "__main__":
    console.run(main)
