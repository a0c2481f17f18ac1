# SPDX-License-Identifier: Apache-2.0
"""Nonograms in plain Python, without the code under test: rows of 0 and 1."""

import itertools


def runs(line):
    """The lengths of the runs of ones, or [0]."""
    return [len(list(run)) for one, run in itertools.groupby(line) if one] or [0]


def clues(grid):
    """The clues of the rows and of the columns."""
    return [runs(row) for row in grid], [
        runs(column) for column in zip(*grid, strict=True)
    ]


def lines_of(clue, length):
    """All lines that fit a clue."""
    return [
        line for line in itertools.product((0, 1), repeat=length) if runs(line) == clue
    ]


def solutions(row_clues, column_clues):
    """All grids with these clues, row by row."""
    rows = [lines_of(clue, len(column_clues)) for clue in row_clues]

    def extended(grid):
        if len(grid) == len(rows):
            if clues(grid)[1] == column_clues:
                yield grid
            return
        for row in rows[len(grid)]:
            longer = [*grid, row]
            if all(map(may_become, zip(*longer, strict=True), column_clues)):
                yield from extended(longer)

    return list(extended([]))


def may_become(start, clue):
    """Whether the runs at the start of a line do not contradict its clue."""
    found = [] if runs(start) == [0] else runs(start)
    expected = ([] if clue == [0] else clue)[: len(found)]
    if found and start[-1] and len(expected) == len(found):
        return found[:-1] == expected[:-1] and found[-1] <= expected[-1]
    return found == expected


def tokens(grid):
    """The tokens of the question: clues around blank cells, row by row."""
    row_clues, column_clues = clues(grid)
    left, top = (len(column_clues) + 1) // 2, (len(row_clues) + 1) // 2

    def slots(clue, count):
        return [4] * (count - len(clue)) + [5 + entry for entry in clue]

    above = zip(*(slots(clue, top) for clue in column_clues), strict=True)
    lines = [[0] * left + list(line) for line in above]
    lines += [slots(clue, left) + [1] * len(column_clues) for clue in row_clues]
    return [token for line in lines for token in line]


def text(grid):
    """The question as text."""
    sides = ("/".join(" ".join(map(str, clue)) for clue in s) for s in clues(grid))
    return "|".join(sides)


def rows_of(text):
    """Lines of `#` and `.` -> rows of 0 and 1."""
    return [[int(character == "#") for character in line] for line in text.split("\n")]
