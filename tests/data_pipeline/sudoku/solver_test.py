# SPDX-License-Identifier: Apache-2.0
import pathlib

import numpy as np
import pytest

from data_pipeline.sudoku.csv_file import read_sudoku_csv
from data_pipeline.sudoku.generator import generate
from data_pipeline.sudoku.grid import BLANK_TOKEN, SudokuShape, decode, encode
from data_pipeline.sudoku.solver import masks_of, solve, tokens_of

BAD = pathlib.Path(__file__).parents[1] / "bad"
FOUR, SIX, NINE = SudokuShape(2, 2), SudokuShape(2, 3), SudokuShape(3, 3)
SHAPES = [FOUR, SIX, NINE]
# Easter Monster: a puzzle known for its difficulty.
MONSTER = (
    "1.......2.9.4...5...6...7...5.9.3.......7.......85..4.7.....6...3...9.8...2.....1"
)


def blank(shape):
    return np.full(shape.num_cells, BLANK_TOKEN, np.uint8)


def count_solutions(tokens, shape, limit=2):
    return int(solve(masks_of(tokens[None], shape), shape, limit).num_solutions[0])


def rating_in_plain_python(tokens, shape):
    """The number of guesses of the search that sudoku/solver.py describes."""
    units = shape.units().tolist()
    digits = range(shape.side)
    guesses = 0

    def propagate(cells):
        """Fill in all naked and hidden singles; return False on a contradiction."""
        before = None
        while before != cells:
            before = [set(cell) for cell in cells]
            for unit in units:
                for cell in unit:
                    if len(cells[cell]) == 1:
                        for other in set(unit) - {cell}:
                            cells[other] -= cells[cell]
                for digit in digits:
                    places = [cell for cell in unit if digit in cells[cell]]
                    if not places:
                        return False
                    if len(places) == 1:
                        cells[places[0]] = {digit}
            if not all(cells):
                return False
        return True

    def search(cells):
        nonlocal guesses
        if not propagate(cells):
            return False
        open_cells = [i for i, cell in enumerate(cells) if len(cell) > 1]
        if not open_cells:
            return True
        chosen = min(open_cells, key=lambda i: (len(cells[i]), i))
        digit = min(cells[chosen])
        guesses += 1
        guess = [set(cell) for cell in cells]
        guess[chosen] = {digit}
        cells[chosen].remove(digit)
        return search(guess) or search(cells)

    assert search(
        [{t - 2} if t > BLANK_TOKEN else set(digits) for t in tokens.tolist()]
    )
    return guesses


def test_solver_counts_all_grids_of_side_four():
    # That there are 288 is a known result of combinatorics.
    assert count_solutions(blank(FOUR), FOUR, limit=1000) == 288


@pytest.mark.parametrize("shape", SHAPES)
def test_solver_stops_at_the_limit(shape):
    assert count_solutions(blank(shape), shape) == 2
    assert count_solutions(blank(shape), shape, limit=5) == 5


def test_solver_finds_one_solution_of_proper_puzzles():
    puzzles = read_sudoku_csv(BAD / "sudoku_ok.csv", NINE)
    assert [count_solutions(question, NINE) for question in puzzles.inputs] == [1] * 5
    assert [count_solutions(answer, NINE) for answer in puzzles.labels] == [1] * 5


def test_solver_finds_the_solutions_of_many_puzzles_at_once():
    puzzles = read_sudoku_csv(BAD / "sudoku_ok.csv", NINE)
    solved = solve(masks_of(puzzles.inputs, NINE), NINE, limit=2)
    assert solved.num_solutions.tolist() == [1] * 5
    np.testing.assert_array_equal(tokens_of(solved.masks), puzzles.labels)


@pytest.mark.parametrize(
    "text",
    ["11..............", "123....4........", "1...1...........", "1....1.........."],
)
def test_solver_finds_no_solution_of_contradictions(text):
    assert count_solutions(encode(text), FOUR) == 0


def test_solver_finds_no_solution_of_a_contradiction_that_takes_guesses():
    blanks = np.flatnonzero(encode(MONSTER) == BLANK_TOKEN)
    masks = np.tile(masks_of(encode(MONSTER)[None], NINE), len(blanks))
    answer = solve(masks[:, :1], NINE).masks
    masks[blanks, np.arange(len(blanks))] ^= answer[blanks, 0]
    solved = solve(masks, NINE)
    assert not solved.num_solutions.any()
    assert solved.guesses.min() > 10


def test_hard_puzzle_is_solved():
    solved = solve(masks_of(encode(MONSTER)[None], NINE), NINE, limit=2)
    assert solved.num_solutions[0] == 1
    answer = tokens_of(solved.masks)
    assert not NINE.broken_units(answer).any()
    pairs = zip(MONSTER, decode(answer[0]), strict=True)
    assert all(question in (".", digit) for question, digit in pairs)


def test_masks_and_tokens_are_inverse():
    tokens = read_sudoku_csv(BAD / "sudoku_ok.csv", NINE).inputs
    np.testing.assert_array_equal(tokens_of(masks_of(tokens, NINE)), tokens)
    assert tokens_of(masks_of(tokens, NINE)).dtype == np.uint8


@pytest.mark.parametrize("shape", SHAPES)
def test_rating_is_the_number_of_guesses_of_the_plain_search(shape):
    puzzles, _ = generate(shape, (15, 1), clues=(0, 0), seed=4)
    expected = [rating_in_plain_python(tokens, shape) for tokens in puzzles.inputs]
    assert puzzles.attributes["rating"].tolist() == expected
    if shape == NINE:
        assert len(set(expected)) > 3


@pytest.mark.parametrize(
    "text",
    [
        MONSTER,
        # In these two, an empty cell or two equal singles in a unit end a guess.
        # Without those checks they would take more guesses.
        "......9...3..1........93..66.75..2.......17.5...2.8....5.8..6.7..2...3...9....81.",
        ".....45.8...37....7......3496.4....73..7....9.2...............36.4..59..8.164....",
    ],
)
def test_rating_of_chosen_puzzles_is_that_of_the_plain_search(text):
    rating = solve(masks_of(encode(text)[None], NINE), NINE).guesses[0]
    assert rating == rating_in_plain_python(encode(text), NINE)
    assert rating > 50 or text != MONSTER


def test_guesses_can_start_at_other_digits():
    lowest = np.random.default_rng(0).integers(0, 9, (81, 20))
    masks = masks_of(np.tile(blank(NINE), (20, 1)), NINE)
    grids = tokens_of(solve(masks, NINE, lowest=lowest).masks)
    assert len(np.unique(grids, axis=0)) == 20
    assert not NINE.broken_units(grids).any()
    assert grids[:, 0].tolist() == (lowest[0] + 2).tolist()


def test_search_without_puzzles_is_empty():
    assert len(solve(np.zeros((16, 0), np.uint16), FOUR).num_solutions) == 0
