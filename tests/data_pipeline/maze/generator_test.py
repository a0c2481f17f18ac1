# SPDX-License-Identifier: Apache-2.0
import hashlib
import time

import numpy as np
import pytest

from data_pipeline.errors import DataError
from data_pipeline.maze import boards, generator
from data_pipeline.maze.generator import generate
from data_pipeline.maze.grid import FREE, GOAL, START, WALL, MazeShape
from data_pipeline.spec import array_digest
from tests.data_pipeline.maze.oracle import decode, search, solution

HARD = {"min_moves": 109, "wall_share": (0.2, 0.5)}
SMALL = {"min_moves": 12, "wall_share": (0.2, 0.5)}
SQUARE = MazeShape(10)
HALF_WORDS, WORDS = MazeShape(30), MazeShape(31)


@pytest.fixture(scope="module")
def small():
    return generate(SQUARE, (3000, 1000), **SMALL, seed=4)


def shares(puzzles):
    return (puzzles.inputs == WALL).mean(1)


def check_maze(tokens, label, rating, shape, min_moves):
    """Check that the label is the oracle's, with `rating` moves and enough of them."""
    text = decode(tokens)
    assert text.count("S") == text.count("G") == 1
    assert set(text) <= set("# SG")
    assert decode(label) == solution(text, shape.side)
    assert rating == decode(label).count("o") + 1 >= min_moves


def forms(inputs, side):
    """Bytes of all turned forms of every maze."""
    grids = inputs.reshape(-1, side, side)
    grids = [
        np.rot90(g, k, (1, 2)) for g in (grids, grids.swapaxes(1, 2)) for k in range(4)
    ]
    return {grid.tobytes() for some in grids for grid in some}


def test_mazes_are_solved_and_long_enough(small):
    for puzzles in small:
        columns = puzzles.inputs, puzzles.labels, puzzles.attributes["rating"]
        for row in list(zip(*columns, strict=True))[:300]:
            check_maze(*row, SQUARE, 12)
        assert puzzles.inputs.dtype == puzzles.labels.dtype == np.uint8
        assert puzzles.attributes["rating"].dtype == np.int64
    assert tuple(map(len, small)) == (3000, 1000)


@pytest.mark.parametrize("shape", [HALF_WORDS, WORDS, MazeShape(62)])
def test_large_mazes_are_solved_too(shape):
    sets = generate(shape, (6, 6), min_moves=40, wall_share=(0.3, 0.4), seed=0)
    for puzzles in sets:
        columns = puzzles.inputs, puzzles.labels, puzzles.attributes["rating"]
        for row in zip(*columns, strict=True):
            check_maze(*row, shape, 40)
        assert 0.28 < shares(puzzles).mean() < 0.42


def blind_draw(rng, side):
    """Random walls with S on a free cell, and the cell of G: any but S, even a wall."""
    walls = rng.random(side * side) < rng.uniform(0.2, 0.5)
    cells = np.where(walls, "#", " ")
    start = rng.choice(np.flatnonzero(~walls))
    goal = rng.choice(np.delete(np.arange(side * side), start))
    cells[start] = "S"
    return "".join(cells), int(goal)


@pytest.mark.slow
def test_distribution_is_that_of_blind_draws(small):
    rng = np.random.default_rng(0)
    found = []
    while len(found) < 1500:
        text, goal = blind_draw(rng, 10)
        moves = search(text, 10)[1].get(divmod(goal, 10), 0)
        if moves >= 12:
            found.append((moves, text.count("#") / 100, text.index("S"), goal))
    drawn = np.concatenate([puzzles.inputs for puzzles in small])
    rating = np.concatenate([puzzles.attributes["rating"] for puzzles in small])
    places = (drawn == START).argmax(1), (drawn == GOAL).argmax(1)
    columns = rating, (drawn == WALL).mean(1), *places
    for blind, made in zip(zip(*found, strict=True), columns, strict=True):
        # By chance, the scaled largest gap exceeds 1.95 once in 1,000.
        at = np.union1d(blind, made)
        counts = [
            np.searchsorted(np.sort(v), at, "right") / len(v) for v in (blind, made)
        ]
        gap = np.abs(counts[0] - counts[1]).max()
        assert gap * np.sqrt(1500 * 4000 / 5500) < 1.95


@pytest.mark.parametrize(
    ("shape", "min_moves"), [(SQUARE, 12), (MazeShape(4), 4), (MazeShape(3), 2)]
)
def test_no_test_maze_is_a_turned_training_maze_of_any_seed(shape, min_moves):
    asked = {"min_moves": min_moves, "wall_share": (0.2, 0.5)}
    train, _ = generate(shape, (400, 1), **asked, seed=1)
    for seed in (1, 2):
        _, test = generate(shape, (1, 400), **asked, seed=seed)
        assert not forms(train.inputs, shape.side) & forms(test.inputs, shape.side)


def test_maze_i_does_not_depend_on_how_many_there_are(small):
    for counts in ((1, 1), (3, 70), (40, 2)):
        for part, whole in zip(
            generate(SQUARE, counts, **SMALL, seed=4), small, strict=True
        ):
            assert part.digests() == whole.first(len(part)).digests()


def test_draws_at_once_do_not_matter(small, monkeypatch):
    monkeypatch.setattr(generator, "CHUNK", 37)
    monkeypatch.setattr(generator._Draws, "usual_limit", lambda self: 50)
    parts = generate(SQUARE, (50, 30), **SMALL, seed=4)
    monkeypatch.setattr(generator, "CHUNK", 512)
    for part, whole in zip(
        parts, generate(SQUARE, (50, 30), **SMALL, seed=4), strict=True
    ):
        assert part.digests() == whole.digests()


def test_limit_does_not_depend_on_the_draws_at_once(monkeypatch):
    limits = []
    for chunk in (64, 512, 4096):
        monkeypatch.setattr(generator, "CHUNK", chunk)
        limits.append(generator._Draws(SQUARE, 20, (0.2, 0.5), 3).usual_limit())
    assert len(set(limits)) == 1


@pytest.mark.parametrize(
    ("share", "found"), [((0, 0), 0), ((0.6, 0.6), 0.6), ((0.25, 0.25), 0.25)]
)
def test_any_share_of_walls_is_met(share, found):
    shape = MazeShape(20)
    draws = generator._Draws(shape, 1, share, 0)
    walls = ~boards.unpack(draws._walls(0, 0, 0, np.arange(500)), shape.side)
    assert abs(walls.mean() - found) <= 4 * np.sqrt(found * (1 - found) / 500 / 400)
    by_cell = np.sqrt(found * (1 - found) / 500)
    assert (abs(walls.mean(0) - found) <= 5 * by_cell).all()
    if found:  # no two cells depend on each other
        assert (abs(np.corrcoef(walls.T) - np.eye(400)) < 6 / np.sqrt(500)).all()


def test_seeds_give_different_mazes():
    digests = {
        array_digest(generate(SQUARE, (9, 7), **SMALL, seed=seed)[0].inputs)
        for seed in range(4)
    }
    assert len(digests) == 4


def test_same_seed_gives_the_same_bytes_everywhere():
    # If this changes, every generated set changes, and so do results on them.
    sets = generate(SQUARE, (9, 7), **SMALL, seed=5)
    digests = "".join(array_digest(a) for p in sets for a in (p.inputs, p.labels))
    assert hashlib.sha256(digests.encode()).hexdigest() == (
        "630b43dda8e099b700cb9eb4349cb9ade0dc4b395f925e5ca78461b8501436e9"
    )


@pytest.mark.parametrize(
    ("counts", "changes", "message"),
    [
        ((5, 5), {"wall_share": (0.5, 0.2)}, r"maze.wall_share = \(0.5, 0.2\); exp"),
        ((5, 5), {"wall_share": (-0.1, 0.2)}, r"maze.wall_share = \(-0.1, 0.2\); exp"),
        ((5, 5), {"wall_share": (0.2,)}, r"maze.wall_share = \(0.2,\); expected"),
        ((5, 5), {"wall_share": (0.2, 1.0)}, r"maze.wall_share = \(0.2, 1.0\); exp"),
        (
            (5, 5),
            {"min_moves": 90},
            r"data.maze.min_moves = 90: only 0 mazes with data.maze.side = 10, "
            r"data.maze.wall_share = \(0.2, 0.5\) found in 69,\d* draws",
        ),
        ((5, 5), {"min_moves": 19, "wall_share": (0, 0)}, "min_moves = 19: only 0"),
    ],
)
def test_wrong_requests_are_refused(counts, changes, message, monkeypatch):
    monkeypatch.setattr(generator, "MAX_DRAWS", 1 << 16)
    with pytest.raises(DataError, match=message):
        generate(SQUARE, counts, **(SMALL | changes), seed=0)


def test_a_split_for_which_nothing_is_left_is_refused(monkeypatch):
    # Without walls, only opposite corners are 4 moves apart: one maze and its turns.
    monkeypatch.setattr(generator, "MAX_DRAWS", 1 << 16)
    message = (
        r"min_moves = 4: only 0 mazes with data.maze.side = 3, .* in 6[5-9],\d* dr"
    )
    with pytest.raises(DataError, match=message):
        generate(MazeShape(3), (1, 1), min_moves=4, wall_share=(0, 0), seed=0)


def test_endless_patience_is_not_asked_for(monkeypatch):
    monkeypatch.setattr(generator, "MAX_DRAWS", generator.MAX_DRAWS // 8)
    start = time.process_time()
    with pytest.raises(DataError, match="only 0 mazes"):
        generate(HALF_WORDS, (1000, 1), min_moves=500, wall_share=(0.2, 0.5), seed=0)
    assert time.process_time() - start < 30 / 8


@pytest.mark.slow
def test_hard_mazes_are_like_the_published_ones():
    sets = generate(HALF_WORDS, (12, 4), **HARD, seed=0)
    rating = np.concatenate([puzzles.attributes["rating"] for puzzles in sets])
    share = np.concatenate([shares(puzzles) for puzzles in sets])
    assert rating.min() >= 109
    assert abs(rating.mean() - 113.9) < 4 * 5.3 / np.sqrt(16)
    assert abs(share.mean() - 0.371) < 4 * 0.026 / np.sqrt(16)
    for puzzles in sets:
        columns = puzzles.inputs, puzzles.labels, puzzles.attributes["rating"]
        for row in zip(*columns, strict=True):
            check_maze(*row, HALF_WORDS, 109)


@pytest.mark.slow
def test_thousand_hard_mazes_have_the_published_statistics():
    start = time.process_time()
    puzzles, _ = generate(HALF_WORDS, (1000, 1), **HARD, seed=1)
    assert time.process_time() - start < 300
    rating, share = puzzles.attributes["rating"], shares(puzzles)
    assert rating.min() == 109
    assert abs(rating.mean() - 113.9) < 0.7
    assert abs((rating == 109).mean() - 0.155) < 0.045
    assert abs(share.mean() - 0.371) < 0.003
    assert abs(share.std() - 0.026) < 0.003
    assert (puzzles.inputs == FREE).any(0).all()
    assert (puzzles.inputs == WALL).any(0).all()
