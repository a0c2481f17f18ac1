# SPDX-License-Identifier: Apache-2.0
import hashlib
import time

import numpy as np
import pytest

from data_pipeline.errors import DataError
from data_pipeline.spec import array_digest
from data_pipeline.sudoku import generator
from data_pipeline.sudoku.canonical import grid_classes, puzzle_classes
from data_pipeline.sudoku.generator import generate
from data_pipeline.sudoku.grid import BLANK_TOKEN, SudokuShape
from data_pipeline.sudoku.symmetries import sample_symmetries

FOUR, SIX, NINE = SudokuShape(2, 2), SudokuShape(2, 3), SudokuShape(3, 3)
MINIMAL = (0, 0)
SETS = [  # shape, counts, clues
    (FOUR, (48, 64), (5, 8)),
    (SIX, (300, 100), (8, 12)),
    (NINE, (40, 24), (26, 30)),
    (FOUR, (12, 12), MINIMAL),
    (SIX, (40, 40), MINIMAL),
    (NINE, (40, 24), MINIMAL),
]


@pytest.fixture(scope="module", params=SETS, ids=str)
def made(request):
    shape, counts, clues = request.param
    return shape, counts, clues, generate(shape, counts, clues=clues, seed=11)


def second_solution(tokens, shape, solution=None):
    """A solution other than the given one, or None, by a slow search of its own."""
    tokens = tokens.tolist()
    peers = [
        sorted({o for unit in shape.units().tolist() if c in unit for o in unit} - {c})
        for c in range(len(tokens))
    ]

    def search():
        options = [
            (len(left), cell, left)
            for cell, token in enumerate(tokens)
            if token == BLANK_TOKEN
            for left in [
                set(range(2, shape.side + 2)) - {tokens[other] for other in peers[cell]}
            ]
        ]
        if not options:
            return None if tokens == solution else list(tokens)
        _, cell, left = min(options)
        for token in left:
            tokens[cell] = token
            if found := search():
                return found
        tokens[cell] = BLANK_TOKEN
        return None

    return search()


def both(sets, name):
    return np.concatenate([puzzles.attributes[name] for puzzles in sets])


def digest(sets):
    arrays = [
        a
        for puzzles in sets
        for a in (puzzles.inputs, puzzles.labels, *puzzles.attributes.values())
    ]
    return hashlib.sha256("".join(map(array_digest, arrays)).encode()).hexdigest()


def test_sets_have_the_sizes_asked_for(made):
    _, counts, _, sets = made
    assert tuple(map(len, sets)) == counts


def test_puzzles_belong_to_their_solutions(made):
    shape, _, _, sets = made
    for puzzles in sets:
        assert puzzles.inputs.dtype == puzzles.labels.dtype == np.uint8
        assert not shape.broken_units(puzzles.labels).any()
        assert puzzles.labels.min() > BLANK_TOKEN
        blank = puzzles.inputs == BLANK_TOKEN
        assert (blank | (puzzles.inputs == puzzles.labels)).all()
        clues = puzzles.attributes["clues"]
        np.testing.assert_array_equal(clues, (~blank).sum(1))
        assert clues.dtype == puzzles.attributes["rating"].dtype == np.int64


def test_solutions_are_unique(made):
    shape, _, _, sets = made
    for puzzles in sets:
        some = puzzles.first(6)
        for puzzle, label in zip(some.inputs, some.labels, strict=True):
            assert second_solution(puzzle, shape) == label.tolist()
            assert second_solution(puzzle, shape, label.tolist()) is None


def test_clues_are_as_few_as_asked_for(made):
    shape, _, clues, sets = made
    if clues != MINIMAL:
        found = both(sets, "clues")
        assert clues[0] <= found.min() < found.max() <= clues[1]
        return
    puzzles = sets[0].first(2)
    for puzzle, label in zip(puzzles.inputs, puzzles.labels, strict=True):
        for cell in np.flatnonzero(puzzle > BLANK_TOKEN):
            fewer = puzzle.copy()
            fewer[cell] = BLANK_TOKEN
            assert second_solution(fewer, shape, label.tolist())


def test_no_puzzle_occurs_twice_under_symmetry(made):
    shape, _, _, sets = made
    hashes = [puzzle_classes(p.inputs, p.labels, shape) for p in sets]
    assert len(np.unique(np.concatenate(hashes))) == sum(map(len, sets))


def test_no_variant_of_a_training_puzzle_is_held_out(made):
    shape, _, _, (train, test) = made

    def classes(inputs, labels):
        """The classes that are held out: puzzles for 2x2 boxes, else solution grids."""
        if shape == FOUR:
            return set(puzzle_classes(inputs, labels, shape).tolist())
        return set(grid_classes(labels, shape).tolist())

    seen = classes(train.inputs, train.labels)
    for index in range(1, 4):
        puzzle = np.arange(len(train))
        symmetry = sample_symmetries(shape, 3, puzzle, np.full(len(train), index))
        variants = symmetry.apply(train.inputs), symmetry.apply(train.labels)
        assert classes(*variants) == seen
    assert not seen & classes(test.inputs, test.labels)


@pytest.mark.parametrize(
    ("shape", "clues", "expected"),
    [
        (
            FOUR,
            (5, 8),
            "fe625ab27d4883944a940b85f8ba8fcb409d2f2e8efacb257824ac400853cfb4",
        ),
        (
            SIX,
            (8, 12),
            "2f83b9b6482196f4a5aac5d08534bf1dab3d05effc4f58f2db030254af6fb573",
        ),
        (
            NINE,
            MINIMAL,
            "05dae3b1f9d7f470bc5e3a84f3edcd2ec493692b607228d0aa342bbc20f80e6f",
        ),
    ],
)
def test_same_seed_gives_the_same_bytes_everywhere(shape, clues, expected):
    # If this changes, every generated set changes, and so do results on them.
    assert digest(generate(shape, (9, 7), clues=clues, seed=5)) == expected


def test_seeds_give_different_puzzles():
    digests = {digest(generate(SIX, (9, 7), clues=(8, 12), seed=s)) for s in range(4)}
    assert len(digests) == 4


def test_draws_at_once_do_not_matter(monkeypatch):
    whole = digest(generate(SIX, (50, 20), clues=(8, 12), seed=1))
    monkeypatch.setattr(generator, "CHUNK", 7)
    assert digest(generate(SIX, (50, 20), clues=(8, 12), seed=1)) == whole


@pytest.mark.parametrize("counts", [(900, 60), (60, 900)])
def test_few_classes_of_grids_are_shared_out_between_the_sets(counts):
    sets = generate(SIX, counts, clues=(12, 14), seed=0)
    assert tuple(map(len, sets)) == counts


def test_all_classes_of_minimal_puzzles_of_side_four_are_found():
    # It is known that 13 classes have 4 clues, 22 have 5 and 1 has 6.
    with pytest.raises(DataError, match="only 36 different puzzles with .*clues"):
        generate(FOUR, (30, 30), clues=MINIMAL, seed=0)
    sets = generate(FOUR, (18, 18), clues=MINIMAL, seed=0)
    assert np.bincount(both(sets, "clues"))[4:].tolist() == [13, 22, 1]


@pytest.mark.parametrize(
    ("counts", "clues", "message"),
    [
        ((5, 5), (8, 5), r"clues = \(8, 5\); expected 1 <= fewest <= most <= 16"),
        ((5, 5), (5,), r"data.sudoku.clues = \(5,\); expected 1 <= fewest"),
        ((5, 5), (0, 5), r"clues = \(0, 5\); .* \(0, 0\) for minimal puzzles"),
        ((5, 5), (5, 17), r"data.sudoku.clues = \(5, 17\); expected"),
        ((5, 9), (2, 3), r"data.train_puzzles = 5, .*_puzzles = 9: only 0 .*clues"),
    ],
)
def test_wrong_requests_are_refused(counts, clues, message):
    with pytest.raises(DataError, match=message):
        generate(FOUR, counts, clues=clues, seed=0)


def test_minimal_puzzles_of_side_nine_need_guesses():
    sets = generate(NINE, (64, 64), clues=MINIMAL, seed=2)
    assert both(sets, "rating").mean() > 2


@pytest.mark.slow
def test_thousand_minimal_puzzles_of_side_nine_take_less_than_two_minutes():
    start = time.process_time()
    sets = generate(NINE, (500, 500), clues=MINIMAL, seed=0)
    assert time.process_time() - start < 120
    assert both(sets, "rating").mean() > 2
