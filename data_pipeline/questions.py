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

_RANDOM_ID = 3  # key of the draw; the loader has the ones below


class EvalSet(NamedTuple):
    """Puzzles to be solved, and how answers to them are judged."""

    puzzles: PuzzleSet
    variants: Variants  # forms to vote over
    # SHA-256 of what each puzzle id names; None: all puzzles share the blank id
    id_map: str | None = None
    # (questions `n m`, answers `n m`) -> `n`: correct by the rules, not by the label
    is_valid: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None
    # (path, first and second answers `n 2 m`): writes a file of attempts
    write_submission: Callable[[Path, np.ndarray], None] | None = None

    def questions(self, *, votes: int = 1, max_puzzles: int = 0) -> "Questions":
        """The first `max_puzzles` groups (0: all), each example in `votes` forms."""
        return Questions(self, votes=votes, max_puzzles=max_puzzles)


class Questions:
    """The rows of an evaluation: every example in its first `votes` forms, in order.

    A form that a puzzle lacks is left out; `votes` = 0 takes all forms that it has.
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
        """Rows that one pass over all forms takes."""
        return len(self.example)

    @property
    def inputs(self) -> np.ndarray:
        """The tokens of form 0 of every example, uint8 `n m`."""
        return self._puzzles.inputs

    @property
    def labels(self) -> np.ndarray:
        """The answers to form 0 of every example, uint8 `n m`; PAD is no label."""
        return self._puzzles.labels

    @property
    def has_solutions(self) -> bool:
        """Whether every example has labels: otherwise nothing can be scored."""
        return bool(self.labels.any(-1).all())

    @property
    def attributes(self) -> dict[str, np.ndarray]:
        """Facts about every example to report by, `n` each."""
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
        """The rows from `start` on, and their numbers, int32 `b`.

        The last batch is padded with rows of weight 0, whose numbers count on.
        `puzzle_ids` = "blank" or "random" hides which puzzle it is: it shows id 0, or
        any of the `num_puzzles` - 1 ids above, which depends only on the row.
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
        """Predicted tokens `r m` of all rows -> answers to form 0, in one writing.

        Equal answers to an example have equal tokens, whatever form they come from.
        """
        return undone(self._variants, self.puzzle, self.form, predictions)
