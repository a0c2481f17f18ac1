# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from data_pipeline.loader import TrainLoader
from data_pipeline.nonogram.generator import generate
from data_pipeline.nonogram.grid import FILLED, NonogramShape, is_solution
from data_pipeline.nonogram.variants import NonogramVariants
from tests.data_pipeline.nonogram import oracle
from tests.helpers.timing import least_seconds

SHAPES = [NonogramShape(5, 5), NonogramShape(6, 6), NonogramShape(5, 8)]
# The turned grid of each form, by lists: of a square, and of another rectangle.
TURNED = {
    "itself": lambda grid: grid,
    "left": lambda grid: across(grid)[::-1],
    "half": lambda grid: [row[::-1] for row in grid[::-1]],
    "right": lambda grid: [row[::-1] for row in across(grid)],
    "columns": lambda grid: [row[::-1] for row in grid],
    "rows": lambda grid: grid[::-1],
    "across": lambda grid: across(grid),
    "other diagonal": lambda grid: [row[::-1] for row in across(grid)[::-1]],
}
OF_RECTANGLES = ("itself", "half", "columns", "rows")


def across(grid):
    return [list(column) for column in zip(*grid, strict=True)]


def forms_of(shape):
    names = TURNED if shape.rows == shape.cols else OF_RECTANGLES
    return [TURNED[name] for name in names]


@pytest.fixture(params=SHAPES, ids=str)
def case(request):
    """The shape, its puzzles, their grids as lists, and their variants."""
    shape = request.param
    puzzles, _ = generate(shape, (12, 1), filled_share=(0.3, 0.7), seed=1)
    cells = puzzles.labels.reshape(-1, *shape.spec.grid_shape)
    grids = (cells[:, shape.top :, shape.left :] == FILLED).astype(int).tolist()
    variants = NonogramVariants(shape, len(puzzles), len(forms_of(shape)))
    return shape, puzzles, grids, variants


def every_form(shape, puzzles):
    count = len(forms_of(shape))
    puzzle = np.repeat(np.arange(len(puzzles)), count)
    return puzzle, np.tile(np.arange(count), len(puzzles))


def test_the_question_and_label_of_a_turned_grid_are_the_turned_ones(case):
    shape, puzzles, grids, variants = case
    puzzle, index = every_form(shape, puzzles)
    stored = puzzles.inputs[puzzle], puzzles.labels[puzzle]
    before = stored[0].copy()
    inputs, labels = variants.apply(puzzle, index, *stored)
    assert inputs.dtype == labels.dtype == np.uint8
    np.testing.assert_array_equal(stored[0], before)
    assert is_solution(inputs, labels, shape).all()
    for p, form, question, label in zip(puzzle, index, inputs, labels, strict=True):
        turned = forms_of(shape)[form](grids[p])
        assert question.tolist() == oracle.tokens(turned)
        expected = shape.labels(np.array([turned], bool))[0]
        np.testing.assert_array_equal(label, expected)


def test_forms_differ(case):
    shape, puzzles, _, variants = case
    puzzle, index = every_form(shape, puzzles)
    inputs, _ = variants.apply(
        puzzle, index, puzzles.inputs[puzzle], puzzles.labels[puzzle]
    )
    assert len(np.unique(inputs, axis=0)) > 0.9 * len(inputs)


def test_undo_is_the_exact_inverse(case):
    shape, puzzles, _, variants = case
    puzzle, index = every_form(shape, puzzles)
    stored = puzzles.labels[puzzle]
    _, labels = variants.apply(puzzle, index, puzzles.inputs[puzzle], stored)
    np.testing.assert_array_equal(variants.undo(puzzle, index, labels), stored)


def test_answers_that_differ_only_beside_the_cells_become_equal(case):
    shape, puzzles, _, variants = case
    puzzle, index = every_form(shape, puzzles)
    stored = puzzles.labels[puzzle]
    _, labels = variants.apply(puzzle, index, puzzles.inputs[puzzle], stored)
    noise = np.random.default_rng(0).integers(16, size=labels.shape, dtype=np.uint8)
    predicted = np.where(labels > 0, labels, noise)
    np.testing.assert_array_equal(variants.undo(puzzle, index, predicted), stored)


def test_forms_are_a_group(case):
    shape, puzzles, grids, variants = case
    forms = forms_of(shape)
    puzzle = np.arange(len(puzzles))

    def apply(form, inputs, labels):
        return variants.apply(puzzle, puzzle * 0 + form, inputs, labels)

    stored = puzzles.inputs, puzzles.labels
    for first in range(len(forms)):
        products = set()
        for second in range(len(forms)):
            twice = [forms[second](forms[first](grid)) for grid in grids]
            product = next(
                k for k in range(len(forms)) if list(map(forms[k], grids)) == twice
            )
            products.add(product)
            found = apply(second, *apply(first, *stored))
            for one, other in zip(found, apply(product, *stored), strict=True):
                np.testing.assert_array_equal(one, other)
        assert products == set(range(len(forms)))


def test_loader_serves_all_forms_and_masks_the_clues(case):
    shape, puzzles, _, variants = case
    loader = TrainLoader(puzzles, batch_size=500, seed=0, variants=variants)
    batch = loader(0)
    count = len(np.unique(batch["inputs"], axis=0))
    assert count > 0.9 * len(puzzles) * len(forms_of(shape))
    mask = batch["label_mask"].reshape(-1, *shape.spec.grid_shape)
    assert mask[:, shape.top :, shape.left :].all()
    assert not mask[:, : shape.top].any()
    assert not mask[:, :, : shape.left].any()
    assert ((batch["inputs"] == shape.spec.blank) == batch["label_mask"]).all()


def test_twenty_thousand_forms_of_ten_are_made_a_second():
    shape = NonogramShape(10, 10)
    puzzles, _ = generate(shape, (50, 1), filled_share=(0.5, 0.7), seed=0)
    variants = NonogramVariants(shape, 50, 8)
    puzzle, index = np.tile(np.arange(50), 40), np.repeat(np.arange(8), 250)
    args = puzzle, index, puzzles.inputs[puzzle], puzzles.labels[puzzle]
    assert len(puzzle) / least_seconds(lambda: variants.apply(*args)) > 20_000


@pytest.mark.parametrize(("shape", "num_forms"), [(SHAPES[0], 9), (SHAPES[2], 5)])
def test_more_forms_than_a_shape_has_are_refused(shape, num_forms):
    with pytest.raises(ValueError, match=f"expected 1 to {num_forms - 1}"):
        NonogramVariants(shape, 1, num_forms)
