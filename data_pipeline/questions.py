# SPDX-License-Identifier: Apache-2.0
"""EvalSet: puzzles to be solved. Questions: the rows that an evaluation shows."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .errors import DataError
from .hashing import random_below
from .loader import Batch, as_batch
from .spec import BLANK_PUZZLE_ID, PuzzleSet
from .variants import Variants, undone

PUZZLE_IDS = ("own", "blank", "random")  # what an evaluation shows as puzzle id

_RANDOM_ID = 3  # key of the draw; the loader uses 0 to 2


class EvalSet(NamedTuple):
    """Puzzles to be solved, and how answers to them are judged."""

    puzzles: PuzzleSet
    variants: Variants  # forms to vote over
    # SHA-256 of what the puzzle ids stand for; None if all puzzles share the blank id
    id_map: str | None = None
    # (questions `n m`, answers `n m`) -> `n`: whether the rules accept each answer
    is_valid: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    # (path, first and second answers `n 2 m`): writes a file of attempts
    write_submission: Callable[[Path, np.ndarray], None] | None = None

    def questions(self, *, votes: int = 1, max_puzzles: int = 0) -> "Questions":
        """The first `max_puzzles` groups (0: all), each example in `votes` forms."""
        return Questions(self, votes=votes, max_puzzles=max_puzzles)


class Questions:
    """The rows of an evaluation: every example in its first `votes` forms, in order.

    A puzzle with fewer forms gives fewer rows. `votes` = 0 takes all forms of a puzzle.
    """

    def __init__(self, test: EvalSet, *, votes: int = 1, max_puzzles: int = 0) -> None:
        most = int(test.variants.num_forms.max())
        if not 0 <= votes <= most:
            raise DataError(
                f"votes = {votes}, but a test puzzle has {most} form(s); expected 1 to "
                f"{most}, or 0 for all of them"
            )
        self.id_map, self.is_valid = test.id_map, test.is_valid
        self.write_submission = test.write_submission
        self._puzzles = test.puzzles.first(max_puzzles)
        self._variants = test.variants
        sizes = np.diff(self._puzzles.puzzle_starts)
        puzzle = np.repeat(np.arange(len(sizes)), sizes)
        forms = self._variants.num_forms[puzzle]
        forms = np.minimum(forms, votes) if votes else forms
        self.example = np.repeat(np.arange(len(puzzle)), forms)  # of each row, `r`
        self.puzzle = puzzle[self.example]
        starts = np.repeat(np.cumsum(forms) - forms, forms)
        self.form = np.arange(len(self.example)) - starts

    @property
    def num_rows(self) -> int:
        """How many rows there are: one for each form of each example."""
        return len(self.example)

    @property
    def inputs(self) -> np.ndarray:
        """The tokens of form 0 of every example, uint8 `n m`."""
        return self._puzzles.inputs

    @property
    def labels(self) -> np.ndarray:
        """The answers to form 0 of every example, uint8 `n m`; PAD means no label."""
        return self._puzzles.labels

    @property
    def has_solutions(self) -> bool:
        """Whether every example has labels, without which nothing can be scored."""
        return bool(self.labels.any(-1).all())

    @property
    def attributes(self) -> dict[str, np.ndarray]:
        """Facts about every example by which results are reported, `n` each."""
        return self._puzzles.attributes

    def group_of_example(self) -> np.ndarray:
        """The group that each example belongs to, `n`."""
        return self._puzzles.group_of_example()

    def digests(self) -> dict[str, str]:
        """SHA-256 of every array of the puzzles."""
        return self._puzzles.digests()

    def batches(
        self,
        batch_size: int,
        *,
        start: int = 0,
        puzzle_ids: str = "own",
        num_puzzles: int = 1,
    ) -> Iterator[tuple[Batch, np.ndarray]]:
        """Batches of the rows from `start` on, with the rows' numbers, int32 `b`.

        The last batch is padded with rows of weight 0. Their numbers continue the
        count. `puzzle_ids` = "blank" or "random" hides which puzzle a row shows: its id
        is then 0, or one of the other `num_puzzles` - 1 ids, which is drawn from the
        example and the form.
        """
        for first in range(start, self.num_rows, batch_size):
            rows = slice(first, first + batch_size)
            example, puzzle, form = (
                of_row[rows] for of_row in (self.example, self.puzzle, self.form)
            )
            inputs, labels = self.inputs[example], self.labels[example]
            ids = self._puzzles.puzzle_ids[puzzle]
            if form.any():
                inputs, labels = self._variants.apply(puzzle, form, inputs, labels)
                ids = ids + form * self._variants.has_ids
            if puzzle_ids == "blank":
                ids = np.full_like(ids, BLANK_PUZZLE_ID)
            elif puzzle_ids == "random" and num_puzzles > 1:
                ids = 1 + random_below(num_puzzles - 1, _RANDOM_ID, example, form)
            missing = batch_size - len(ids)
            yield (
                {
                    name: np.pad(a, [(0, missing)] + [(0, 0)] * (a.ndim - 1))
                    for name, a in as_batch(inputs, labels, ids).items()
                },
                np.arange(first, first + batch_size, dtype=np.int32),
            )

    def turned_back(self, predictions: np.ndarray) -> np.ndarray:
        """Predicted tokens `r m` of all rows -> answers to form 0.

        Equal answers to an example get equal tokens, whatever form they come from.
        """
        return undone(self._variants, self.puzzle, self.form, predictions)
