# SPDX-License-Identifier: Apache-2.0
"""Writes Sudokus of the generator to two CSV files, from which runs start at once.

python -m data_pipeline.generate TRAIN.csv TEST.csv --train=N --test=N [--seed=S]
                                 [--clues=FEWEST,MOST] [--boxes=ROWSxCOLUMNS]

The puzzles are those of data.source = "generator" with the same numbers and data.seed.
--clues=0,0, the default, makes minimal puzzles. A file that exists is not overwritten.
Exit codes: 0 done, 2 wrong input.
"""

import argparse
import csv
import io
import pathlib
import re

from . import console
from .errors import DataError
from .spec import PuzzleSet
from .sudoku.generator import generate
from .sudoku.grid import SudokuShape, decode
from .text_files import CSV_COLUMNS

# What messages of the generator call the settings.
FLAGS = {
    "data.sudoku.clues": "--clues",
    "data.train_puzzles": "--train",
    "data.test_puzzles": "--test",
}


def as_csv(puzzles: PuzzleSet) -> str:
    """Sudokus with their rating as the text of a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    rows = zip(
        puzzles.inputs, puzzles.labels, puzzles.attributes["rating"], strict=True
    )
    for question, answer, rating in rows:
        writer.writerow(("generated", decode(question), decode(answer), rating))
    return text.getvalue()


def main(argv: list[str]) -> int:
    """Write both files; wrong input is one line and exit code 2."""
    parser = argparse.ArgumentParser(prog="python -m data_pipeline.generate")
    parser.add_argument("files", nargs=2, type=pathlib.Path, metavar="FILE.csv")
    parser.add_argument("--train", type=int, required=True)
    parser.add_argument("--test", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clues", type=_pair, default=(0, 0))
    parser.add_argument("--boxes", type=_pair, default=(3, 3))
    args = parser.parse_args(argv)
    for name in ("train", "test"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} = {getattr(args, name)}; expected 1 or more")
    try:
        counts, shape = (args.train, args.test), SudokuShape(*args.boxes)
        if args.boxes not in ((2, 2), (2, 3), (3, 3)):
            raise DataError(f"--boxes = {args.boxes}; expected 2x2, 2x3 or 3x3")
        _check_targets(args.files)
        sets = generate(shape, counts, clues=args.clues, seed=args.seed)
        for path, puzzles in zip(args.files, sets, strict=True):
            path.write_text(as_csv(puzzles), encoding="ascii")
            console.say(f"{path}: {len(puzzles):,} puzzles\n")
    except (DataError, OSError) as error:
        message = str(error)
        for key, flag in FLAGS.items():
            message = message.replace(key, flag)
        parser.error(message)
    return 0


def _check_targets(paths: list[pathlib.Path]) -> None:
    """Raise DataError if writing these files would fail, or would lose another one."""
    for path in paths:
        if path.exists():
            raise DataError(f"{path} exists; remove it, or name another file")
        if not path.parent.is_dir():
            raise DataError(f"{path}: the folder {path.parent} does not exist")
    if paths[0].resolve() == paths[1].resolve():
        raise DataError(f"{paths[0]} is named twice; expected two files")


def _pair(text: str) -> tuple[int, int]:
    """Two whole numbers, separated by a comma or an x."""
    if not re.fullmatch(r"\d{1,4}[,x]\d{1,4}", text):
        raise argparse.ArgumentTypeError(f"{text!r}; expected two whole numbers")
    first, second = map(int, re.split("[,x]", text))
    return first, second


if __name__ == "__main__":
    console.run(main)
