# SPDX-License-Identifier: Apache-2.0
"""The published shortest path of a maze, and a check whether a path is a shortest one.

The label is the path of a breadth-first search from S that keeps the first parent and
expands neighbours in the order down, left, right, up. By induction over its levels, the
queue holds the cells of one level in lexicographic order of the moves to them. So the
label is the first of all shortest paths in that order. A walk from S finds it by always
taking the first of the four moves that leads nearer to G. Only the distances to G need
a search.
"""

from collections.abc import Iterator

import numpy as np

from ..errors import DataError
from ..spec import PAD_ID
from . import boards
from .grid import FREE, GOAL, PATH, START, WALL, MazeShape

UNREACHABLE = -1
CHUNK = 512  # mazes at once: their boards stay in the cache

# down, left, right, up
_ROW_STEPS = np.array([1, 0, 0, -1])
_COLUMN_STEPS = np.array([0, -1, 1, 0])


def solve(inputs: np.ndarray, shape: MazeShape) -> np.ndarray:
    """Mazes `n m` -> their labels, uint8 `n m`.

    Raises DataError unless each maze has one S, one G and a path between them.
    """
    for name, token in (("start", START), ("goal", GOAL)):
        counts = (inputs == token).sum(1)
        for maze in np.flatnonzero(counts != 1)[:1]:
            found = f"{counts[maze]} {name}s, exactly 1 expected"
            raise DataError(f"maze {maze + 1} of {len(inputs)}: {found}")
    labels = inputs.astype(np.uint8)
    for rows in _chunks(len(inputs)):
        stuck = _draw_paths(labels[rows], shape.side)
        if stuck.size:
            maze = rows.start + stuck[0] + 1
            raise DataError(f"maze {maze} of {len(inputs)}: no path from S to G")
    return labels


def distances(inputs: np.ndarray, shape: MazeShape) -> np.ndarray:
    """Moves from S to every cell, int16 `n m`; UNREACHABLE if there is no path."""
    result = np.full(inputs.shape, UNREACHABLE, np.int16)
    digits = range(shape.num_cells.bit_length())
    for rows in _chunks(len(inputs)):
        start = boards.pack(inputs[rows] == START, shape.side)
        free = boards.pack(_open(inputs[rows]), shape.side)
        # One board per binary digit of the distances, so that few need unpacking.
        seen, planes = np.zeros_like(free), [np.zeros_like(free) for _ in digits]
        for moves, level in enumerate(boards.levels(start, free)):
            seen |= level
            for digit in digits:
                if moves >> digit & 1:
                    planes[digit] |= level
        cells = [boards.unpack(plane, shape.side) for plane in planes]
        total = sum(plane.astype(np.int16) << d for d, plane in enumerate(cells))
        np.copyto(result[rows], total, where=boards.unpack(seen, shape.side))
    return result


def path_moves(cells: np.ndarray, inputs: np.ndarray, shape: MazeShape) -> np.ndarray:
    """Fewest moves `n` from S to G within `cells`, bool `n m`, or UNREACHABLE.

    Each maze of `inputs`, `n m`, must have exactly one S and one G.
    """
    result = np.full(len(inputs), UNREACHABLE)
    for rows in _chunks(len(inputs)):
        start = boards.pack(inputs[rows] == START, shape.side)
        free = boards.pack(cells[rows], shape.side)
        maze, row, column = _places(inputs[rows] == GOAL, shape.side)
        for moves, level in enumerate(boards.levels(start, free)):
            result[rows][boards.has(level, maze, row, column)] = moves
    return result


def min_moves(inputs: np.ndarray, shape: MazeShape) -> np.ndarray:
    """Length `n` of the shortest paths of mazes `n m`; UNREACHABLE if there is none."""
    return path_moves(_open(inputs), inputs, shape)


def is_shortest_path(
    inputs: np.ndarray, answers: np.ndarray, shape: MazeShape
) -> np.ndarray:
    """Which answers `n m` draw any shortest path and change nothing else: `n`.

    Answers may hold any tokens. The result is False for a maze without exactly one S
    and one G.
    """
    kept = np.where(
        inputs == FREE, (answers == FREE) | (answers == PATH), inputs == answers
    )
    right = kept.all(1)
    right &= ((inputs == START).sum(1) == 1) & ((inputs == GOAL).sum(1) == 1)
    left = np.flatnonzero(right)
    inputs, drawn = inputs[left], on_path(answers[left])
    # A path of `fewest` moves in `fewest` + 1 cells uses them all: they are one line.
    fewest = min_moves(inputs, shape)
    right[left] = fewest == drawn.sum(1) - 1
    right[left] &= fewest == path_moves(drawn, inputs, shape)
    return right


def on_path(answers: np.ndarray) -> np.ndarray:
    """The path's cells, S and G among them."""
    return (answers == PATH) | (answers == START) | (answers == GOAL)


def _chunks(count: int) -> Iterator[slice]:
    return (slice(i, min(i + CHUNK, count)) for i in range(0, count, CHUNK))


def _open(inputs: np.ndarray) -> np.ndarray:
    return (inputs != WALL) & (inputs != PAD_ID)


def _places(marks: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The marked cell of each maze: maze, row and column `n`, with the margins."""
    cell = marks.argmax(1)
    return np.arange(len(marks)), cell // side + 1, cell % side + 1


def _draw_paths(mazes: np.ndarray, side: int) -> np.ndarray:
    """Draw the label's path into mazes `n m`; return the mazes without one, sorted."""
    maze, row, column = _places(mazes == START, side)
    goal = boards.pack(mazes == GOAL, side)
    to_goal = list(boards.levels(goal, boards.pack(_open(mazes), side)))
    moves = np.full(len(mazes), UNREACHABLE)
    for distance, level in enumerate(to_goal):
        moves[boards.has(level, maze, row, column)] = distance
    for distance in range(moves.max() - 1, 0, -1):
        # Walks farther from G than `distance` take a step; the others wait at S.
        on, level = np.flatnonzero(moves > distance), to_goal[distance]
        nearer = [
            boards.has(level, on, row[on] + down, column[on] + right)
            for down, right in zip(_ROW_STEPS, _COLUMN_STEPS, strict=True)
        ]
        direction = np.argmax(nearer, axis=0)
        row[on] += _ROW_STEPS[direction]
        column[on] += _COLUMN_STEPS[direction]
        mazes[on, (row[on] - 1) * side + column[on] - 1] = PATH
    return np.flatnonzero(moves == UNREACHABLE)
