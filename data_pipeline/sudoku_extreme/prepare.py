# SPDX-License-Identifier: Apache-2.0
"""Prepares a Sudoku set: `python -m data_pipeline.sudoku_extreme.prepare --help`.

Exit code 0: prepared and read back; facts on stdout, warnings on stderr. 2: not.
"""

import argparse
import pathlib
import sys
from typing import Any

from .. import preparing
from ..sudoku.grid import SudokuShape
from .reader import (
    DEFAULT_SHAPE,
    NAME,
    SHAPES,
    prepared_set,
)


def main(argv: list[str]) -> int:
    """Prepares by command line; returns the exit code."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--shape", choices=SHAPES, default=next(iter(SHAPES)))
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument("--clues", type=int, nargs=2, default=(0, 0), help="fewest, most")
    return preparing.run(
        preparing.puzzle_parser(NAME, common, made),
        argv,
        lambda options: prepared_set(SHAPES[options.pop("shape")]),
        preparing.puzzle_facts,
    )


def prepare(
    data_dir: str | pathlib.Path, shape: SudokuShape = DEFAULT_SHAPE, **source: Any
) -> list[str]:
    """Stores both splits under `data_dir`, see preparing.prepare; returns warnings."""
    return preparing.prepare(prepared_set(shape), data_dir, **source)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
