# SPDX-License-Identifier: Apache-2.0
"""New mazes with long shortest paths, from a seed.

Maze i of a split depends only on the seed, the split and i: it is the first accepted
one of its draws. A draw consists of a share of walls, the walls and S. If K cells are
possible places for G, the draw is accepted with a probability proportional to K, and G
is one of these cells at random. The result is distributed as if G were drawn from all
cells and the mazes in which this place is not possible were rejected.

No maze is in both splits, not even as a turned form or with different seeds. A hash of
the walls and S, which turned forms share, decides which split may have G an odd number
of moves away, and which an even number.
"""

import dataclasses

import numpy as np

from ..dihedral import cell_sources
from ..errors import DataError
from ..hashing import random_below, random_bits
from ..spec import PuzzleSet
from . import boards
from .grid import CHARACTERS, FREE, GOAL, START, WALL, MazeShape
from .solver import distances, solve

CHUNK = 4096  # draws at once, for speed; the result does not depend on it
MAX_DRAWS = 1 << 20  # per maze on average, before a request counts as impossible

_TRAIN, _TEST, _PILOT = range(3)
_SHARE, _WALLS, _START, _GOAL, _CLASS = range(5)
_SHARE_BITS = 12  # shares of walls are multiples of 2**-12
_WORD = 64
_PILOT_DRAWS = 128
# K is nearly exponential: its mean excess over 7 means is exp(-7) of the mean.
_TAIL = 7


def generate(
    shape: MazeShape,
    counts: tuple[int, int],
    *,
    min_moves: int,
    wall_share: tuple[float, float],
    seed: int,
) -> tuple[PuzzleSet, PuzzleSet]:
    """A training and a test set of `counts` mazes, whose `rating` counts the moves.

    Cells are walls independently, with a probability that is drawn uniformly from the
    range `wall_share` for each maze. The shortest path from S to G takes `min_moves` or
    more. If few such mazes exist, one may occur several times in its set.

    Raises DataError for wrong requests, and if hardly any draw meets them.
    """
    _check(wall_share)
    draws = _Draws(shape, min_moves, wall_share, seed)
    limit = draws.usual_limit()
    train, test = (
        _mazes(draws, split, count, limit)
        for split, count in zip((_TRAIN, _TEST), counts, strict=True)
    )
    return train, test


def _check(wall_share: tuple[float, float]) -> None:
    if len(wall_share) != 2 or not 0 <= wall_share[0] <= wall_share[1] < 1:
        raise DataError(
            f"data.maze.wall_share = {wall_share}; expected 0 <= lowest <= highest < 1"
        )


def _mazes(draws: "_Draws", split: int, count: int, limit: int) -> PuzzleSet:
    """Mazes 0 .. count - 1 of a split."""
    inputs = np.zeros((count, draws.shape.num_cells), np.uint8)
    tries = np.zeros(count, int)
    missing = np.arange(count)
    while missing.size:
        drawing = missing[:CHUNK]
        each = max(1, min(CHUNK, tries.sum()) // len(drawing))
        draw = tries[drawing, None] + np.arange(each)
        maze, found = draws.accepted(
            split, np.repeat(drawing, each), draw.ravel(), limit
        )
        maze, first = np.unique(maze, return_index=True)
        inputs[maze] = found[first]
        tries[drawing] += each
        missing = missing[~np.isin(missing, maze)]
        if tries.sum() > MAX_DRAWS * (1 + count - len(missing)):
            raise draws.too_rare(count - len(missing), tries.sum())
    labels = solve(inputs, draws.shape)
    moves = (labels != inputs).sum(1) + 1
    return PuzzleSet.of_single_examples(inputs, labels, rating=moves)


@dataclasses.dataclass(frozen=True)
class _Draws:
    """A request, and its draws: their keys are split, maze and number of the draw."""

    shape: MazeShape
    min_moves: int
    wall_share: tuple[float, float]
    seed: int

    def usual_limit(self) -> int:
        """A number that the count of places for G in one split hardly ever exceeds.

        A draw with this count or a larger one is always accepted. The exact limit, half
        of the cells, would need several times as many draws.
        """
        counts = np.zeros(0, int)
        first, size = 0, 64
        while len(counts) < _PILOT_DRAWS and first < MAX_DRAWS:
            _, _, moves = self.far(_PILOT, 0, np.arange(first, first + size))
            counts = np.append(counts, (moves >= self.min_moves).sum(1))
            first, size = first + size, min(2 * size, CHUNK)
        if not counts.size:
            raise self.too_rare(0, first)
        half = counts[:_PILOT_DRAWS].mean() / 2
        return min(int(_TAIL * half) + 1, self.shape.num_cells // 2)

    def accepted(
        self, split: int, maze: np.ndarray, draw: np.ndarray, limit: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The mazes `n` whose draws are accepted, in order, and their tokens `n m`."""
        kept, inputs, moves = self.far(split, maze, draw)
        odd = (_classes(inputs, self.shape.side) + split) % 2
        places = (moves >= self.min_moves) & (moves % 2 == odd[:, None])
        keys = self.seed, split, maze[kept], draw[kept], _GOAL
        chosen = random_below(limit, *keys)
        count = places.sum(1)
        chosen = np.where(count > limit, random_below(count, *keys), chosen)
        right = np.flatnonzero(chosen < count)
        goal = (places.cumsum(1) > chosen[:, None])[right].argmax(1)
        inputs = inputs[right]
        inputs[np.arange(len(right)), goal] = GOAL
        return maze[kept][right], inputs

    def far(
        self, split: int, maze: int | np.ndarray, draw: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The draws with places for G: indices `n`, tokens and moves from S, `n m`."""
        keys = self.seed, split, maze, draw
        side = self.shape.side
        free = self._walls(*keys)
        start = _any_cell(free, *keys, _START)
        kept = _reaching(start, free, self.min_moves)
        cells = boards.unpack(free[:, kept], side)
        inputs = np.where(cells, np.uint8(FREE), np.uint8(WALL))
        inputs[boards.unpack(start[:, kept], side)] = START
        return kept, inputs, distances(inputs, self.shape)

    def too_rare(self, found: int, draws: int) -> DataError:
        """The error for a request that cannot be met, or only with too many draws."""
        return DataError(
            f"data.maze.min_moves = {self.min_moves}: only {found} mazes with "
            f"data.maze.side = {self.shape.side}, data.maze.wall_share = "
            f"{self.wall_share} found in {draws:,} draws; ask for shorter paths or "
            "another share"
        )

    def _walls(self, *keys: int | np.ndarray) -> np.ndarray:
        """The free cells, as a board."""
        side, (low, high) = self.shape.side, self.wall_share
        share = low + (high - low) * (random_bits(*keys, _SHARE) / 2**64)
        most = 2**_SHARE_BITS - 1
        chance = np.minimum(np.rint(share * 2**_SHARE_BITS), most).astype(int)
        rows_per_word = _WORD // side
        word = np.arange(-(-side // rows_per_word))[:, None]
        walls = np.zeros((len(word), len(share)), np.uint64)
        for bit in range(_SHARE_BITS):
            # A bit that was 1 with probability p becomes 1 with p / 2 or (1 + p) / 2.
            noise = random_bits(*keys, _WALLS, bit, word)
            more = np.where(chance >> bit & 1, ~np.uint64(0), np.uint64(0))
            walls = (walls & noise) | ((walls ^ noise) & more)
        shift = np.arange(rows_per_word, dtype=np.uint64)[:, None] * np.uint64(side)
        rows = (~walls[:, None] >> shift).reshape(-1, len(share))[:side]
        rows = (rows & np.uint64(2**side - 1)) << np.uint64(1)
        return np.pad(rows.astype(boards.word_type(side)), ((1, 1), (0, 0)))


def _any_cell(free: np.ndarray, *keys: int | np.ndarray) -> np.ndarray:
    """A board of one random free cell of each maze, or of none if it has none."""
    maze = np.arange(free.shape[1])
    before = np.bitwise_count(free).cumsum(0, dtype=np.int16)
    chosen = random_below(before[-1], *keys)
    row = (before > chosen).argmax(0)
    chosen -= before[row - 1, maze]
    size = 8 * free.itemsize
    ones = free[row, maze, None] >> np.arange(size, dtype=free.dtype) & 1
    column = (ones.cumsum(1, dtype=np.int8) > chosen[:, None]).argmax(1)
    board = np.zeros_like(free)
    board[row, maze] = np.ones_like(row, free.dtype) << column.astype(free.dtype)
    return board & free


def _reaching(start: np.ndarray, free: np.ndarray, moves: int) -> np.ndarray:
    """Indices of the mazes that have a cell `moves` moves away from the start."""
    left = np.arange(free.shape[1])
    unseen, frontier = free & ~start, start
    for move in range(moves):
        frontier = boards.step(frontier, unseen)
        if move % 8 == 7:
            alive = np.flatnonzero(frontier.any(0))
            left = left[alive]
            frontier, unseen = frontier.take(alive, 1), unseen.take(alive, 1)
    return left[frontier.any(0)]


def _classes(inputs: np.ndarray, side: int) -> np.ndarray:
    """0 or 1 for each maze of walls and S, `n m`. All turned forms of a maze agree."""
    cells = np.arange(side**2)
    table = random_bits(_CLASS, np.arange(1 + len(CHARACTERS))[:, None], cells)
    forms = [
        np.bitwise_xor.reduce(table[inputs[:, source], cells], axis=1)
        for source in cell_sources(side)
    ]
    return (np.min(forms, axis=0) & np.uint64(1)).astype(int)
