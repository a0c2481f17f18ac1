# SPDX-License-Identifier: Apache-2.0
"""Augmented forms of ARC tasks, with their own ids, moved at random in training."""

import numpy as np

from ..dihedral import INVERSE
from ..hashing import random_below
from ..variants import Variants, Visit
from .augmentations import decode_augmentation
from .grids import decode_sizes, redraw, turned_sizes


class ArcVariants(Variants):
    """Augmented forms: codes[starts[p] + i] makes form i of puzzle p.

    The stored tokens are the original tasks, with every grid in the corner of the
    canvas. An unknown output is all PAD in every form.
    """

    has_ids = True

    def __init__(
        self, codes: np.ndarray, starts: np.ndarray, side: int, seed: int
    ) -> None:
        self.num_forms = np.diff(starts)
        self._codes, self._starts = codes, starts
        self._side, self._seed = side, seed

    def visit(
        self, rows: Visit, inputs: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The form, with input and output moved together to a place where both fit.

        The first example of every visit (slot 0) stays in the corner.
        """
        augmentation = self._augmentation(rows.puzzle, rows.form)
        sizes = [decode_sizes(tokens, self._side) for tokens in (inputs, labels)]
        largest = np.maximum(*(turned_sizes(size, augmentation[0]) for size in sizes))
        position, axis = rows.position[:, None], np.arange(2)
        offset = random_below(self._side + 1 - largest, self._seed, position, axis)
        offset[rows.slot == 0] = 0
        return (
            redraw(inputs, sizes[0], *augmentation, offset, self._side),
            redraw(labels, sizes[1], *augmentation, offset, self._side),
        )

    def apply(
        self,
        puzzle: np.ndarray,
        index: np.ndarray,
        inputs: np.ndarray,
        labels: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The form, in the corner of the canvas."""
        augmentation = self._augmentation(puzzle, index)
        return self._in_corner(inputs, *augmentation), self._in_corner(
            labels, *augmentation
        )

    def undo(
        self, puzzle: np.ndarray, index: np.ndarray, answers: np.ndarray
    ) -> np.ndarray:
        """The grids of the answers, turned and recoloured back, in the corner."""
        transform, colours = self._augmentation(puzzle, index)
        return self._in_corner(answers, INVERSE[transform], np.argsort(colours, axis=1))

    def _augmentation(
        self, puzzle: np.ndarray, index: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Transforms `b` and colour maps `b 10`."""
        return decode_augmentation(self._codes[self._starts[puzzle] + index])

    def _in_corner(
        self, tokens: np.ndarray, transform: np.ndarray, colours: np.ndarray
    ) -> np.ndarray:
        sizes = decode_sizes(tokens, self._side)
        corner = np.zeros((len(tokens), 2), int)
        return redraw(tokens, sizes, transform, colours, corner, self._side)
