# SPDX-License-Identifier: Apache-2.0
"""Prepares a set of mazes: `python -m data_pipeline.maze_hard.prepare --help`.

Exit code 0: prepared and read back; facts on stdout, warnings on stderr. 2: not.
"""

import argparse
import pathlib
import sys
from typing import Any

from .. import preparing
from ..maze.grid import MazeShape
from .reader import DEFAULT_SHAPE, NAME, prepared_set


def main(argv: list[str]) -> int:
    """Prepares by command line; returns the exit code."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--side", type=int, default=DEFAULT_SHAPE.side)
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument("--min_moves", type=int, default=109, help="of shortest paths")
    made.add_argument(
        "--wall_share", type=float, nargs=2, default=(0.2, 0.5), help="lowest, highest"
    )
    return preparing.run(
        preparing.puzzle_parser(NAME, common, made),
        argv,
        lambda options: prepared_set(MazeShape(options.pop("side"))),
        preparing.puzzle_facts,
    )


def prepare(
    data_dir: str | pathlib.Path, shape: MazeShape = DEFAULT_SHAPE, **source: Any
) -> list[str]:
    """Stores both splits under `data_dir`, see preparing.prepare; returns warnings."""
    return preparing.prepare(prepared_set(shape), data_dir, **source)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
