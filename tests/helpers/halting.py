# SPDX-License-Identifier: Apache-2.0
"""A tiny model whose rows halt at different steps, and rows for it."""

from functools import cache

import jax
import numpy as np

from data_pipeline.questions import EvalSet
from data_pipeline.spec import PuzzleSet
from tests.helpers.tiny import tiny_built

BATCH = 4


class OneForm:
    """Puzzles as they are."""

    has_ids = False

    def __init__(self, count):
        self.num_forms = np.ones(count, int)

    def undo(self, puzzle, index, answers):
        return answers


class TwoForms(OneForm):
    """Form 1 has its cells in reverse order."""

    def __init__(self, count):
        self.num_forms = np.full(count, 2)

    def apply(self, puzzle, index, *grids):
        return tuple(
            np.where(index[:, None] == 1, grid[:, ::-1], grid) for grid in grids
        )

    def undo(self, puzzle, index, answers):
        return self.apply(puzzle, index, answers)[0]


def questions(count=11, votes=1):
    """Random grids with random labels, in one form or two."""
    rng = np.random.default_rng(3)
    tokens = rng.integers(1, 7, (2, count, 16)).astype(np.uint8)
    puzzles = PuzzleSet(
        *tokens,
        puzzle_starts=np.arange(count + 1),
        group_starts=np.arange(count + 1),
        puzzle_ids=np.zeros(count, np.int32),
        attributes={},
    )
    forms = TwoForms(count) if votes > 1 else OneForm(count)
    return EvalSet(puzzles, forms).questions(votes=votes)


@cache
def halting_model(devices=1):
    """What is built, and weights with a halting head that is right about nothing."""
    built = tiny_built({"mesh.data": devices})
    state = built.init()
    params = dict(state.params)
    draw = jax.random.normal(jax.random.key(5), params["halt_kernel"].shape)
    params["halt_kernel"] = 0.3 * draw
    params["halt_bias"] = 0 * params["halt_bias"] - 0.5
    return built, (params, state.constants, state.puzzle_table)
