# SPDX-License-Identifier: Apache-2.0
import itertools
import time

import numpy as np
import pytest

from data_pipeline.nonogram.grid import NonogramShape, clues_of
from data_pipeline.nonogram.lines import clue_codes, known_clues, placements, to_entries
from data_pipeline.nonogram.solver import solve
from tests.data_pipeline.nonogram import oracle

SHAPES = [(5, 5), (5, 6), (7, 5)]


def drawn(rows, cols, count, share=0.45, seed=0):
    return np.random.default_rng(seed).random((count, rows, cols)) < share


def guesses_in_plain_python(row_clues, column_clues):
    """Solutions, and guesses of the search that nonogram/solver.py describes."""
    size = len(row_clues), len(column_clues)
    fitting = [[oracle.lines_of(c, size[1]) for c in row_clues]]
    fitting.append([oracle.lines_of(c, size[0]) for c in column_clues])
    solutions = guesses = 0

    def narrowed(cells):
        """Line solving until nothing changes; None on a contradiction."""
        before = None
        while cells != before:
            before = cells
            for lines in fitting:
                allowed = [
                    [one for one in fit if all(map(set.__contains__, cell, one))]
                    for fit, cell in zip(lines, cells, strict=True)
                ]
                if not all(allowed):
                    return None
                cells = [[set(c) for c in zip(*fit, strict=True)] for fit in allowed]
                cells = [list(line) for line in zip(*cells, strict=True)]
        return cells

    def search(cells):
        nonlocal solutions, guesses
        cells = narrowed(cells)
        if cells is None or solutions == 2:
            return
        places = itertools.product(*map(range, size))
        cell = next(((r, c) for r, c in places if len(cells[r][c]) == 2), None)
        if cell is None:
            solutions += 1
            return
        guesses += 1
        for value in (1, 0):
            copy = [[set(c) for c in row] for row in cells]
            copy[cell[0]][cell[1]] = {value}
            if solutions < 2:
                search(copy)

    search([[{0, 1} for _ in range(size[1])] for _ in range(size[0])])
    return solutions, guesses


@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_solutions_are_counted_as_by_brute_force(rows, cols):
    grids = drawn(rows, cols, 40)
    solved = solve(*clues_of(grids), NonogramShape(rows, cols))
    for grid, count, found in zip(
        grids.astype(int).tolist(), solved.num_solutions, solved.filled, strict=True
    ):
        expected = oracle.solutions(*oracle.clues(grid))
        assert count == min(len(expected), 2)
        assert [tuple(row) for row in found.astype(int).tolist()] in expected
    assert set(solved.num_solutions.tolist()) == {1, 2}


def test_the_limit_stops_the_count():
    grids = np.eye(5, dtype=bool)[None]
    counts = [
        solve(*clues_of(grids), NonogramShape(5, 5), limit).num_solutions[0]
        for limit in (1, 2, 50, 500)
    ]
    assert counts == [1, 2, 50, 120]  # all permutations


@pytest.mark.parametrize(("rows", "cols"), SHAPES)
def test_guesses_are_those_of_the_described_search(rows, cols):
    grids = drawn(rows, cols, 40, share=0.35, seed=1)
    solved = solve(*clues_of(grids), NonogramShape(rows, cols))
    expected = [
        guesses_in_plain_python(*oracle.clues(grid))
        for grid in grids.astype(int).tolist()
    ]
    found = zip(solved.num_solutions.tolist(), solved.guesses.tolist(), strict=True)
    assert list(found) == expected
    assert {0, 1, 2} <= set(solved.guesses.tolist())


def test_large_grids_are_solved_as_by_brute_force():
    grids = drawn(10, 10, 4, share=0.5, seed=2)
    solved = solve(*clues_of(grids), NonogramShape(10, 10))
    for grid, count in zip(
        grids.astype(int).tolist(), solved.num_solutions, strict=True
    ):
        assert count == min(len(oracle.solutions(*oracle.clues(grid))), 2)


def test_clues_without_a_solution_have_none():
    grid = np.zeros((1, 5, 5), bool)
    grid[0, 0, [0, 2]] = True
    rows, columns = clues_of(grid)
    contradictory, absurd = rows.copy(), rows.copy()
    contradictory[0, 0] = clue_codes(np.ones(5, bool))
    absurd[0, 0] -= 1  # the entries 1 and 0
    rows = np.concatenate([rows, contradictory, absurd])
    solved = solve(rows, np.tile(columns, (3, 1)), NonogramShape(5, 5))
    assert solved.num_solutions.tolist() == [1, 0, 0]
    np.testing.assert_array_equal(solved.filled[:1], grid)
    assert not solved.filled[1:].any()


@pytest.mark.parametrize("length", [5, 8, 10])
def test_every_line_is_a_placement_of_its_clue(length):
    known, table = known_clues(length), placements(length)
    for code, row in zip(known, table, strict=True):
        clue = [d - 1 for d in to_entries(code, (length + 1) // 2).tolist() if d]
        expected = {
            sum(1 << 2 * i + value for i, value in enumerate(line))
            for line in oracle.lines_of(clue, length)
        }
        assert set(row.tolist()) - {2**32 - 1} == expected
    assert (table < 2**32 - 1).sum() == 2**length


def test_fifteen_hundred_grids_of_ten_are_solved_a_second():
    grids = drawn(10, 10, 500, share=0.5)
    start = time.process_time()
    solve(*clues_of(grids), NonogramShape(10, 10))
    assert 500 / (time.process_time() - start) > 1_500
