# SPDX-License-Identifier: Apache-2.0
import pathlib

import numpy as np
import pytest

from data_pipeline.sudoku import BLANK_TOKEN, SudokuShape, encode
from data_pipeline.sudoku_csv import read_sudoku_csv
from data_pipeline.sudoku_solver import count_solutions

BAD = pathlib.Path(__file__).parent / "bad"
NINE = SudokuShape(3, 3)


def test_solver_counts_all_grids_of_side_four():
    # 288 is a known number of combinatorics.
    blank = np.full(16, BLANK_TOKEN, np.uint8)
    assert count_solutions(blank, SudokuShape(2, 2), limit=1000) == 288


@pytest.mark.parametrize("shape", [SudokuShape(2, 2), SudokuShape(2, 3), NINE])
def test_solver_stops_at_the_limit(shape):
    blank = np.full(shape.num_cells, BLANK_TOKEN, np.uint8)
    assert count_solutions(blank, shape) == 2
    assert count_solutions(blank, shape, limit=5) == 5


def test_solver_finds_one_solution_of_proper_puzzles():
    puzzles = read_sudoku_csv(BAD / "sudoku_ok.csv", NINE)
    assert [count_solutions(question, NINE) for question in puzzles.inputs] == [1] * 5
    assert [count_solutions(answer, NINE) for answer in puzzles.labels] == [1] * 5


@pytest.mark.parametrize("text", ["11..............", "123....4........"])
def test_solver_finds_no_solution_of_contradictions(text):
    assert count_solutions(encode(text), SudokuShape(2, 2)) == 0
