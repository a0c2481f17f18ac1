# SPDX-License-Identifier: Apache-2.0
"""Prepares a Sudoku set: `python -m data_pipeline.sudoku_extreme.prepare --help`.

Exit code 0: prepared and read back; facts on stdout, warnings on stderr. 2: not.
"""

import argparse
import pathlib
import sys
from typing import Any

from data_pipeline.errors import DataError
from data_pipeline.prepared import (
    DEFAULT_SHAPE,
    NEEDS_TFDS,
    SHAPES,
    open_prepared,
    prepared_folder,
    unfinished_folders,
)
from data_pipeline.sudoku.grid import SudokuShape

SPLITS = ("train", "test")


def main(argv: list[str]) -> int:
    """Prepares by command line; returns the exit code."""
    options = vars(_parser().parse_args(argv))
    data_dir, shape = options.pop("data_dir"), SHAPES[options.pop("shape")]
    try:
        warnings = prepare(data_dir, shape, **options)
        counts = {split: len(open_prepared(data_dir, split, shape)) for split in SPLITS}
    except DataError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    for warning in warnings:
        sys.stderr.write(f"warning: {warning}\n")
    facts = ", ".join(f"{split} {count:,} rows" for split, count in counts.items())
    sys.stdout.write(f"{prepared_folder(data_dir, shape)}: {facts}\n")
    return 0


def prepare(
    data_dir: str | pathlib.Path, shape: SudokuShape = DEFAULT_SHAPE, **source: Any
) -> list[str]:
    """Stores both splits and their cache under `data_dir`; returns warnings.

    `source` holds the constructor arguments of Builder. A folder that exists is
    refused. Nothing appears under its final name before all records are written.
    """
    folder = prepared_folder(data_dir, shape)
    if folder.exists():
        raise DataError(f"{folder}: exists already; remove it to prepare it anew")
    try:
        import array_record  # noqa: F401  TFDS imports it late
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(f"{folder}: to prepare it {NEEDS_TFDS}: {error}") from error
    from data_pipeline.sudoku_extreme.sudoku_extreme_dataset_builder import Builder

    warnings = [
        f"{path}: left by a preparation that was killed or still runs"
        for path in unfinished_folders(folder)
    ]
    tfds.disable_progress_bar()
    config, root = folder.parent.name, folder.parents[2]
    builder = Builder(data_dir=root, config=config, **source)
    try:
        builder.download_and_prepare()
    except OSError as error:
        raise DataError(f"{folder}: cannot be written: {error}") from error
    for split in SPLITS:
        open_prepared(data_dir, split, shape)  # reads the records back, fills the cache
    return warnings + builder.warnings


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--data_dir", required=True, help="parent of sudoku_extreme/")
    common.add_argument("--shape", choices=SHAPES, default=next(iter(SHAPES)))
    parser = argparse.ArgumentParser(
        prog="python -m data_pipeline.sudoku_extreme.prepare"
    )
    sources = parser.add_subparsers(dest="source", required=True)
    sources.add_parser("hub", parents=[common], help="download the public files")
    csv = sources.add_parser("csv", parents=[common], help="read files of your own")
    csv.add_argument("--train", required=True, help="path of a .csv or .csv.gz file")
    csv.add_argument("--test", required=True, help="likewise")
    made = sources.add_parser("generator", parents=[common], help="make new puzzles")
    made.add_argument("--train_puzzles", type=int, required=True)
    made.add_argument("--test_puzzles", type=int, required=True)
    made.add_argument("--clues", type=int, nargs=2, default=(0, 0), help="fewest, most")
    made.add_argument("--seed", type=int, default=0)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
