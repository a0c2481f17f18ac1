# SPDX-License-Identifier: Apache-2.0
"""Slow maze solvers, written independently of data_pipeline/maze."""

import collections
import itertools
import pathlib

import numpy as np
import pytest

SHARED = pathlib.Path(__file__).parents[4] / "shared" / "data" / "maze"

needs_shared = pytest.mark.skipif(
    not SHARED.exists(), reason="the mazes of ../shared are not here"
)


def rows_of(text):
    """The rows of a maze that is drawn as text, with `.` for a free cell."""
    return [line.strip().replace(".", " ") for line in text.split()]


def random_text(rng, side, share=0.35):
    """Characters of a maze of side `side`; G may be out of reach."""
    cells = np.where(rng.random(side * side) < share, "#", " ")
    start, goal = rng.permutation(side * side)[:2]
    cells[start], cells[goal] = "S", "G"
    return "".join(cells)


def neighbours(cell, side):
    """The neighbours (row, column) of a cell: down, left, right, up."""
    row, column = cell
    around = [
        (row + 1, column),
        (row, column - 1),
        (row, column + 1),
        (row - 1, column),
    ]
    return [(r, c) for r, c in around if 0 <= r < side and 0 <= c < side]


def search(text, side):
    """Parents and distances from S, by a first-parent breadth-first search."""
    grid = {(i // side, i % side): c for i, c in enumerate(text)}
    start = next(cell for cell, c in grid.items() if c == "S")
    parent, distance = {start: None}, {start: 0}
    queue = collections.deque([start])
    while queue:
        cell = queue.popleft()
        for near in neighbours(cell, side):
            if grid[near] in " SGo" and near not in parent:
                parent[near], distance[near] = cell, distance[cell] + 1
                queue.append(near)
    return parent, distance


def solution(text, side):
    """The maze with the published path drawn in; None if there is no path."""
    parent, _ = search(text, side)
    goal = divmod(text.index("G"), side)
    if goal not in parent:
        return None
    cells, cell = list(text), parent[goal]
    while parent[cell] is not None:
        cells[cell[0] * side + cell[1]] = "o"
        cell = parent[cell]
    return "".join(cells)


def all_shortest(text, side):
    """All answers that draw a shortest path, each step of which comes nearer to G."""
    _, distance = search(
        text.replace("S", "*").replace("G", "S").replace("*", "G"), side
    )
    start = divmod(text.index("S"), side)
    ways = [[start]] if start in distance else []
    for left in range(distance.get(start, 0) - 1, -1, -1):
        ways = [
            [*way, near]
            for way in ways
            for near in neighbours(way[-1], side)
            if distance.get(near) == left
        ]
    answers = set()
    for way in ways:
        cells = list(text)
        for row, column in way[1:-1]:
            cells[row * side + column] = "o"
        answers.add("".join(cells))
    return answers


def drawings(text):
    """Every way to put `o` on any of the free cells."""
    free = [i for i, c in enumerate(text) if c == " "]
    for chosen in itertools.product(" o", repeat=len(free)):
        cells = list(text)
        for i, character in zip(free, chosen, strict=True):
            cells[i] = character
        yield "".join(cells)


def is_line(answer, side):
    """Whether S, o and G form one line that does not touch itself; found by a walk."""
    grid = {divmod(i, side): c for i, c in enumerate(answer) if c in "SGo"}
    cell = next(place for place, c in grid.items() if c == "S")
    visited = [cell]
    while grid[cell] != "G":
        onward = [n for n in neighbours(cell, side) if n in grid and n not in visited]
        if len(onward) != 1:
            return False
        cell = onward[0]
        visited.append(cell)
        if sum(n in visited for n in neighbours(cell, side)) > 1:
            return False
    return len(visited) == len(grid)


def decode(tokens):
    """One maze's tokens as characters; `?` for PAD."""
    return "".join("?# SGo"[token] for token in tokens)
