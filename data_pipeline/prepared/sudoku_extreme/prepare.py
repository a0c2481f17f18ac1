# SPDX-License-Identifier: Apache-2.0
"""Prepares Sudoku sets: `python -m data_pipeline.prepared.sudoku_extreme.prepare -h`.

Exit code 0 means that the data set was prepared and read back: facts go to stdout,
warnings to stderr. Exit code 2 means that it was not.
"""

import argparse

from ... import console
from .. import writing
from .names import (
    NAME,
    SHAPES,
    prepared_set,
)


def main(argv: list[str]) -> int:
    """Prepares by command line; returns the exit code."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--shape", choices=SHAPES, default=next(iter(SHAPES)))
    return writing.run(
        writing.puzzle_parser(NAME, common, "sudoku"),
        argv,
        lambda options: prepared_set(SHAPES[options.pop("shape")]),
        writing.puzzle_facts,
    )


if __name__ == "__main__":
    console.run(main)
