# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest

from data_pipeline.errors import DataError
from data_pipeline.loader import TrainLoader
from data_pipeline.maze import variants as variants_module
from data_pipeline.maze.grid import MazeShape, encode
from data_pipeline.maze.variants import MazeVariants
from data_pipeline.spec import PuzzleSet
from data_pipeline.variants import Visit
from tests.data_pipeline.maze.oracle import all_shortest, decode, random_text, solution
from tests.helpers.timing import least_seconds

SIDE = 7
SHAPE = MazeShape(SIDE)
# The source of cell (row, column) in each form, written without NumPy's turns.
SOURCE = [
    lambda r, c, e: (r, c),
    lambda r, c, e: (c, e - r),
    lambda r, c, e: (e - r, e - c),
    lambda r, c, e: (e - c, r),
    lambda r, c, e: (r, e - c),
    lambda r, c, e: (e - r, c),
    lambda r, c, e: (c, r),
    lambda r, c, e: (e - c, e - r),
]


def turned(text, form):
    end = SIDE - 1
    cells = [divmod(i, SIDE) for i in range(SIDE**2)]
    sources = [SOURCE[form](r, c, end) for r, c in cells]
    return "".join(text[r * SIDE + c] for r, c in sources)


@pytest.fixture(scope="module")
def texts():
    rng = np.random.default_rng(3)
    drawn = [random_text(rng, SIDE) for _ in range(60)]
    return [text for text in drawn if len(all_shortest(text, SIDE)) > 1]


@pytest.fixture
def puzzles(texts):
    """Mazes whose stored labels are shortest paths, but not the published choice."""
    labels = [max(all_shortest(text, SIDE) - {solution(text, SIDE)}) for text in texts]
    return PuzzleSet.of_single_examples(
        np.stack([encode(text) for text in texts]),
        np.stack([encode(text) for text in labels]),
    )


def every_form(puzzles):
    puzzle = np.repeat(np.arange(len(puzzles)), 8)
    return puzzle, np.tile(np.arange(8), len(puzzles))


def test_walls_are_turned_and_labels_solved_again(texts, puzzles):
    variants = MazeVariants(puzzles, SHAPE, 8)
    puzzle, index = every_form(puzzles)
    stored = puzzles.inputs[puzzle], puzzles.labels[puzzle]
    inputs, labels = variants.apply(puzzle, index, *stored)
    assert inputs.dtype == labels.dtype == np.uint8
    assert len(texts) > 10
    for row, (p, form) in enumerate(zip(puzzle, index, strict=True)):
        text = turned(texts[p], form)
        label = solution(text, SIDE) if form else decode(puzzles.labels[p])
        assert decode(inputs[row]) == text
        assert decode(labels[row]) == label


def test_undo_turns_answers_back(puzzles):
    variants = MazeVariants(puzzles, SHAPE, 8)
    puzzle, index = every_form(puzzles)
    stored = puzzles.inputs[puzzle]
    inputs, _ = variants.apply(puzzle, index, stored, puzzles.labels[puzzle])
    assert (inputs != stored).any()
    np.testing.assert_array_equal(variants.undo(puzzle, index, inputs), stored)


def test_order_and_repeats_do_not_matter(puzzles):
    puzzle, index = every_form(puzzles)
    stored = puzzles.inputs[puzzle], puzzles.labels[puzzle]
    whole = MazeVariants(puzzles, SHAPE, 8).apply(puzzle, index, *stored)
    variants = MazeVariants(puzzles, SHAPE, 8)
    rows = np.random.default_rng(0).integers(len(puzzle), size=(9, 50))
    for some in rows:
        visit = Visit(puzzle[some], puzzle[some], index[some], some * 0, some)
        parts = variants.visit(visit, *(a[some] for a in stored))
        for part, array in zip(parts, whole, strict=True):
            np.testing.assert_array_equal(part, array[some])


def test_each_form_is_solved_once_and_form_0_never(puzzles, monkeypatch):
    solved = []

    def counting(inputs, shape, solve=variants_module.solve):
        solved.append(len(inputs))
        return solve(inputs, shape)

    monkeypatch.setattr(variants_module, "solve", counting)
    variants = MazeVariants(puzzles, SHAPE, 8)
    puzzle, index = every_form(puzzles)
    for forms in (index * 0, index, index):
        variants.apply(puzzle, forms, puzzles.inputs[puzzle], puzzles.labels[puzzle])
    assert sum(solved) == 7 * len(puzzles)


def test_loader_serves_all_forms(puzzles):
    variants = MazeVariants(puzzles, SHAPE, 8)
    loader = TrainLoader(puzzles, batch_size=500, seed=0, variants=variants)
    batch = loader(0)
    assert len(np.unique(batch["inputs"], axis=0)) > 7 * len(puzzles)
    assert not batch["puzzle_id"].any()
    assert not variants.has_ids
    assert variants.num_forms.tolist() == [8] * len(puzzles)


def test_fifty_thousand_known_forms_a_second():
    shape = MazeShape(30)
    rng = np.random.default_rng(0)
    inputs = np.full((400, 900), 2, np.uint8)
    start, goal = np.split(rng.integers(450, size=800), 2)
    inputs[np.arange(400), start], inputs[np.arange(400), 450 + goal] = 3, 4
    variants = MazeVariants(PuzzleSet.of_single_examples(inputs, inputs), shape, 8)
    puzzle, index = np.repeat(np.arange(400), 8), np.tile(np.arange(8), 400)
    args = puzzle, index, inputs[puzzle], inputs[puzzle]
    assert len(puzzle) / least_seconds(lambda: variants.apply(*args)) > 50_000


@pytest.mark.parametrize("num_forms", [0, 9])
def test_a_square_has_eight_forms(puzzles, num_forms):
    with pytest.raises(ValueError, match="expected 1 to 8"):
        MazeVariants(puzzles, SHAPE, num_forms)


def test_puzzles_of_several_examples_are_refused(puzzles):
    starts = np.array([0, len(puzzles)])
    joined = PuzzleSet(
        puzzles.inputs, puzzles.labels, starts, np.arange(2), np.zeros(1), {}
    )
    with pytest.raises(DataError, match="in 1 puzzles; expected .* one example each"):
        MazeVariants(joined, SHAPE, 8)
