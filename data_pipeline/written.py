# SPDX-License-Identifier: Apache-2.0
"""Questions as users write them: text, or grids of numbers."""

import abc
import string
from typing import Any

import numpy as np

from .drawing import Look
from .errors import DataError
from .spec import PuzzleSpec
from .text_files import file_named, read_text


class WrittenPuzzle(abc.ABC):
    """How users write a kind of puzzle, and how they see it."""

    @abc.abstractmethod
    def spec(self) -> PuzzleSpec:
        """The sizes of the puzzles."""

    def parse(self, question: Any) -> np.ndarray:
        """A question as a user writes it -> tokens `m`, uint8. Raises DataError.

        By default a question is rows of tokens. A task may accept text.
        """
        spec = self.spec()
        tokens = as_numbers(question, spec.grid_shape, spec.vocab_size - 1)
        return tokens.ravel().astype(np.uint8)

    def read(self, source: str, number: int = 1) -> tuple[Any, Any, str | None]:
        """The question in a text or file, and its answer and its name or None.

        A file or text may hold one question per line; `number`, from 1, chooses one.
        Raises DataError.
        """
        path = file_named(source)
        text = read_text(path).strip("\n") if path else source
        lines = text.split("\n")
        if len(lines) > 1 and not all(map(self.is_whole, lines)):
            lines = [text]
        if not 1 <= number <= len(lines):
            where = path or "the puzzle"
            raise DataError(
                f"{where}: question {number}; it has {len(lines)}, from 1 on"
            )
        return lines[number - 1], None, None

    def is_whole(self, line: str) -> bool:
        """Whether a line of text may be a whole question."""
        return len(line) == self.spec().num_cells

    def name_of(self, example: int) -> str | None:
        """The name, if puzzles have names, of the task of a test example."""
        del example
        return None

    def look(self) -> Look:
        """How tokens are drawn: by default as 0 to 9, a to z, and `?` beyond."""
        names = string.digits + string.ascii_lowercase
        return Look(tuple(names.ljust(self.spec().vocab_size, "?")))

    def shown(self, answers: np.ndarray, question: np.ndarray) -> np.ndarray:
        """Answers to a question, tokens `k m` -> what is drawn, `k m`.

        A task may replace cells of an answer that have no meaning.
        """
        del question
        return answers

    def tokens(self, question: Any) -> np.ndarray:
        """Tokens `m` of a question, which may be an array of tokens `m` already."""
        is_done = isinstance(question, np.ndarray) and question.ndim == 1
        return question if is_done else self.parse(question)

    def reply(self, tokens: np.ndarray, question: Any) -> Any:
        """An answer, written like its question; rows of cells if that was tokens."""
        if isinstance(question, np.ndarray) and question.ndim == 1:
            return self.grid(tokens).tolist()
        return self.written(tokens, question)

    def grid(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens `m` -> the cells as users know them, `r c`."""
        return tokens.reshape(self.spec().grid_shape)

    def written(self, tokens: np.ndarray, question: Any) -> Any:
        """An answer, written like its question: by default as rows of numbers."""
        del question
        return self.grid(tokens).tolist()


def check_text(
    text: str, what: str, side: int, allowed: str, *, listed: str, hint: str
) -> None:
    """Raise DataError unless `text` has `side` rows of `side` allowed characters."""
    if len(text) != side**2:
        raise DataError(
            f"{what}: {len(text)} characters found, {side**2} expected "
            f"({side} rows of {side}{hint})"
        )
    for i, character in enumerate(text):
        if character not in allowed:
            row, column = divmod(i, side)
            raise DataError(
                f"{what}: character {character!r} at row {row + 1}, column "
                f"{column + 1}; allowed: {listed}"
            )


def as_numbers(question: Any, grid_shape: tuple[int, int], most: int) -> np.ndarray:
    """Rows of whole numbers from 0 to `most` -> int64 `r c`. Raises DataError."""
    rows, columns = grid_shape
    expected = f"expected {rows} rows of {columns} whole numbers"
    try:
        grid = np.asarray(question)
    except ValueError as error:  # rows of different lengths
        raise DataError(f"the puzzle: {expected}") from error
    if grid.shape != grid_shape or grid.dtype.kind not in "iu":
        found = f"{grid.shape} of {grid.dtype}"
        raise DataError(f"the puzzle: shape {found}; {expected}")
    for row, column in np.argwhere((grid < 0) | (grid > most))[:1]:
        raise DataError(
            f"the puzzle: {grid[row, column]} at row {row + 1}, column {column + 1}; "
            f"expected 0 to {most}"
        )
    return grid.astype(np.int64)


def is_many(puzzle: Any) -> bool:
    """Whether this is a list of puzzles: of texts, or of grids (rows of numbers)."""
    if isinstance(puzzle, str):
        return False
    if isinstance(puzzle, np.ndarray):
        return puzzle.ndim > 2
    first = next(iter(puzzle), "")
    return isinstance(first, str) or np.ndim(next(iter(first), 0)) > 0
