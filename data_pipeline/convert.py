# SPDX-License-Identifier: Apache-2.0
"""Converts Sudoku files of other kinds: `python -m data_pipeline.convert IN OUT.csv`.

Reads
  CSV, .csv.gz, .csv.zst and .parquet with columns for question and answer under one of
    the names puzzle, quizzes, question, quiz; solution, solutions, answer;
  text (.txt, .sdm, .sdk, .ss) with one puzzle per line, or a grid over several lines.
Blanks may be `.`, `0`, `_` or `*`; lines of text that begin with `#` or `[` are
skipped, and so are the characters that draw boxes. Writes the columns source, question,
answer, rating. A missing answer is computed, and a puzzle that has none, or several, is
an error. A missing rating is computed as the number of guesses of the solver. The size
of the boxes follows from the number of cells. Exit codes: 0 done, 2 wrong input.
"""

import csv
import io
import itertools
import math
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from . import console
from .errors import DataError
from .sudoku.grid import SudokuShape, decode, encode
from .sudoku.solver import masks_of, solve, tokens_of
from .text_files import CSV_COLUMNS, MAX_LINE, read_lines, shorten

QUESTIONS = ("question", "puzzle", "quizzes", "quiz", "puzzles")
ANSWERS = ("answer", "solution", "solutions")
RATINGS = ("rating", "difficulty")
TEXT = (".txt", ".sdm", ".sdk", ".ss")
SHAPES = {16: (2, 2), 36: (2, 3), 81: (3, 3)}  # cells -> rows and columns of a box
_BLANKS = str.maketrans("0_*", "...")
_CHUNK = 4096


class Found(NamedTuple):
    """A puzzle of a file, and its place there; what is absent is empty."""

    place: str
    question: str
    answer: str = ""
    rating: str = ""


def main(argv: list[str]) -> int:
    """Converts a file; returns the exit code."""
    if len(argv) != 2 or argv[0].startswith("-"):
        if argv in (["-h"], ["--help"]):
            console.say(f"{__doc__}")
            return 0
        sys.stderr.write(f"{__doc__}")
        return 2
    try:
        count = convert(pathlib.Path(argv[0]), pathlib.Path(argv[1]))
    except DataError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    console.say(f"{argv[1]}: {count:,} puzzles\n")
    return 0


def convert(source: pathlib.Path, target: pathlib.Path) -> int:
    """Write the puzzles of `source` as a CSV file; return their number.

    Raises DataError, and then leaves no file.
    """
    if target.suffix != ".csv":
        raise DataError(f"{target}: expected a name that ends in .csv")
    puzzles, count = read(source), 0
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    while chunk := list(itertools.islice(puzzles, _CHUNK)):
        count += len(chunk)
        rows = completed(chunk)
        writer.writerows((source.stem, *row) for row in rows)
    if not count:
        raise DataError(f"{source}: 0 puzzles")
    try:
        target.write_text(text.getvalue())
    except OSError as error:
        raise DataError(f"{target}: cannot be written: {error.strerror}") from None
    return count


def completed(puzzles: list[Found]) -> list[tuple[str, str, str]]:
    """Question, answer and rating of each puzzle. Raises DataError."""
    cells = len(puzzles[0].question)
    if cells not in SHAPES:
        sizes = ", ".join(map(str, SHAPES))
        raise DataError(f"{puzzles[0].place}: {cells} cells, one of {sizes} expected")
    shape = SudokuShape(*SHAPES[cells])
    allowed = set("." + "123456789"[: math.isqrt(cells)])
    for one in puzzles:
        for text in filter(None, (one.question, one.answer)):
            if len(text) != cells:
                raise DataError(f"{one.place}: {len(text)} cells, {cells} expected")
            if wrong := set(text) - allowed:
                character = ascii(min(wrong))
                raise DataError(f"{one.place}: character {character}; see --help")
    tokens = np.stack([encode(one.question) for one in puzzles])
    found = solve(masks_of(tokens, shape), shape, limit=2)
    ratings = [one.rating for one in puzzles]
    if not all(ratings):  # the guesses until the first solution
        guesses = solve(masks_of(tokens, shape), shape, limit=1).guesses
        ratings = [own or str(n) for own, n in zip(ratings, guesses, strict=True)]
    solved, rows = tokens_of(found.masks), []
    for i, one in enumerate(puzzles):
        if found.num_solutions[i] != 1:
            number = "no solution" if not found.num_solutions[i] else "many solutions"
            raise DataError(f"{one.place}: the puzzle has {number}, one is expected")
        answer = decode(solved[i])
        if one.answer and one.answer != answer:
            raise DataError(f"{one.place}: the answer does not solve the puzzle")
        rows.append((one.question, answer, ratings[i]))
    return rows


def read(path: pathlib.Path) -> Iterator[Found]:
    """The puzzles of a file, by the end of its name."""
    suffix = pathlib.Path(path.name.removesuffix(".gz").removesuffix(".zst")).suffix
    if suffix in TEXT:
        return _of_text(path)
    if suffix == ".parquet":
        return _of_rows(path, _parquet_rows(path))
    if suffix == ".csv":
        lines = _unpacked_lines(path) if path.suffix == ".zst" else read_lines(path)
        return _of_rows(path, csv.DictReader(lines))
    names = ", ".join((*TEXT, ".csv", ".csv.gz", ".csv.zst", ".parquet"))
    raise DataError(f"{path}: expected a name that ends in {names}")


def _of_rows(path: pathlib.Path, rows: Any) -> Iterator[Found]:
    for number, row in enumerate(rows, start=1):
        by_name = {str(k).strip().lower(): str(v or "") for k, v in row.items()}
        fields = [
            next((by_name[name] for name in names if name in by_name), "")
            for names in (QUESTIONS, ANSWERS, RATINGS)
        ]
        if not fields[0]:
            columns = shorten(", ".join(by_name))
            raise DataError(
                f"{path}: row {number}: no question; columns found: {columns}, one of "
                f"{', '.join(QUESTIONS)} expected"
            )
        question, answer, rating = (field.strip() for field in fields)
        whole = rating if rating.isascii() and rating.isdigit() else ""
        place = f"{path}: row {number}"
        yield Found(place, _cells(question), _cells(answer), whole)


def _of_text(path: pathlib.Path) -> Iterator[Found]:
    """One puzzle per line, or several lines that make a square."""
    grid: list[str] = []
    first = 0
    for number, line in enumerate(read_lines(path), start=1):
        if line.lstrip().startswith(("#", "[")) or re.fullmatch(r"[\s+|=-]*", line):
            continue
        cells = _cells(re.sub(r"[\s|+!,]", "", line))
        if len(cells) in SHAPES and not grid:
            yield Found(f"{path}: line {number}", cells)
            continue
        first = first if grid else number
        grid.append(cells)
        if len(grid) == len(grid[0]):
            yield Found(f"{path}: line {first}", "".join(grid))
            grid = []
    if grid:
        raise DataError(f"{path}: line {first}: a grid of {len(grid[0])} rows expected")


def _cells(text: str) -> str:
    return text.translate(_BLANKS)


def _parquet_rows(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow import ArrowException, parquet  # type: ignore[import-untyped]
    except ImportError:
        raise DataError(f"{path}: needs the package pyarrow") from None
    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(_CHUNK):
                yield from batch.to_pylist()
    except (ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


def _unpacked_lines(path: pathlib.Path) -> Iterator[str]:
    try:
        import zstandard  # type: ignore[import-not-found]
    except ImportError:
        raise DataError(f"{path}: needs the package zstandard") from None
    try:
        with zstandard.open(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), ""), 1):
                if len(line) == MAX_LINE:
                    raise DataError(
                        f"{path}: line {number}: more than {MAX_LINE} bytes"
                    )
                yield line
    except (zstandard.ZstdError, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from None


if __name__ == "__main__":
    console.run(main)
