# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from data_pipeline.errors import DataError
from data_pipeline.maze import solver
from data_pipeline.maze.grid import MazeShape, encode
from data_pipeline.maze.solver import (
    distances,
    is_shortest_path,
    min_moves,
    path_moves,
    solve,
)
from data_pipeline.text_files import read_rows
from tests.data_pipeline.maze.oracle import (
    SHARED,
    all_shortest,
    decode,
    drawings,
    needs_shared,
    random_text,
    rows_of,
    search,
    solution,
)
from tests.helpers.timing import least_seconds

SIDES = [2, 3, 5, 10, 29, 30, 31, 40, 62]  # 30 is the largest that fits half words
HAND_MADE = [
    ("S..  ...  ..G", "S..  o..  ooG"),  # down before right
    ("G..  ...  ..S", "G..  o..  ooS"),  # nothing is down; left comes before up
    ("..S  ...  G..", "..S  ..o  Goo"),
    ("..G  ...  S..", "..G  ..o  Soo"),
    ("S.G  ...  ...", "SoG  ...  ..."),
    ("S#G  ...  ...", "S#G  ooo  ..."),
    ("...  S#G  ...", "...  S#G  ooo"),  # two shortest ways: down
    (".G.  .#.  .S.", "oG.  o#.  oS."),  # again two, upwards: left
    ("SG.  ...  ...", "SG.  ...  ..."),
]


def tokens(texts):
    return np.stack([encode(text) for text in texts])


def random_mazes(side, count, seed):
    rng = np.random.default_rng(seed)
    return [random_text(rng, side) for _ in range(count)]


@pytest.fixture(scope="module")
def published():
    rows = [row for f in ("train", "test") for row in read_rows(SHARED / f"{f}.csv.gz")]
    fields = [fields for _, _, fields in rows]
    return tokens(f[1] for f in fields), tokens(f[2] for f in fields), fields


@needs_shared
def test_every_published_label_is_found(published):
    inputs, labels, fields = published
    assert len(inputs) == 1500
    np.testing.assert_array_equal(solve(inputs, MazeShape(30)), labels)
    assert min_moves(inputs, MazeShape(30)).tolist() == [int(f[3]) for f in fields]
    assert is_shortest_path(inputs, labels, MazeShape(30)).all()


@needs_shared
def test_eight_thousand_mazes_are_solved_in_four_seconds(published):
    inputs = np.resize(published[0], (8000, 900))
    assert least_seconds(lambda: solve(inputs, MazeShape(30))) < 4


@pytest.mark.parametrize(("maze", "label"), HAND_MADE)
def test_ties_are_broken_as_published(maze, label):
    maze, label = "".join(rows_of(maze)), "".join(rows_of(label))
    assert decode(solve(tokens([maze]), MazeShape(3))[0]) == label


@pytest.mark.parametrize("side", SIDES)
def test_labels_and_distances_are_those_of_a_queue(side):
    texts = random_mazes(side, 40, seed=side)
    shape = MazeShape(side)
    expected = [solution(text, side) for text in texts]
    found = distances(tokens(texts), shape)
    for text, row in zip(texts, found, strict=True):
        _, distance = search(text, side)
        assert row.tolist() == [
            distance.get(divmod(i, side), -1) for i in range(side**2)
        ]
    goals = [row[text.index("G")] for text, row in zip(texts, found, strict=True)]
    assert min_moves(tokens(texts), shape).tolist() == goals
    solvable = [text for text, label in zip(texts, expected, strict=True) if label]
    labels = solve(tokens(solvable), shape)
    assert list(map(decode, labels)) == [label for label in expected if label]
    assert labels.dtype == np.uint8


def test_chunks_join_without_a_seam(monkeypatch):
    texts = [t for t in random_mazes(6, 40, seed=1) if solution(t, 6)]
    inputs = tokens(texts)
    results = []
    for chunk in (512, 7):
        monkeypatch.setattr(solver, "CHUNK", chunk)
        shape = MazeShape(6)
        labels = solve(inputs, shape)
        valid = is_shortest_path(inputs, labels, shape)
        results.append((labels, distances(inputs, shape), valid))
    for whole, parts in zip(*results, strict=True):
        np.testing.assert_array_equal(whole, parts)


@pytest.mark.parametrize(
    ("maze", "message"),
    [
        ("S#G######", "maze 2 of 2: no path from S to G"),
        ("S        ", "maze 2 of 2: 0 goals, exactly 1 expected"),
        ("SGS      ", "maze 2 of 2: 2 starts, exactly 1 expected"),
    ],
)
def test_mazes_without_a_solution_are_refused(maze, message):
    with pytest.raises(DataError, match=message):
        solve(tokens(["S G      ", maze]), MazeShape(3))


def test_refused_maze_is_numbered_over_all_chunks(monkeypatch):
    monkeypatch.setattr(solver, "CHUNK", 2)
    with pytest.raises(DataError, match="maze 4 of 5"):
        solve(tokens(["S G      "] * 3 + ["S#G######"] * 2), MazeShape(3))


def test_no_mazes_have_no_labels():
    none = np.zeros((0, 9), np.uint8)
    shape = MazeShape(3)
    assert solve(none, shape).shape == distances(none, shape).shape == (0, 9)
    assert is_shortest_path(none, none, shape).shape == (0,)


@pytest.mark.parametrize("seed", range(12))
def test_right_paths_are_exactly_the_shortest_of_all_drawings(seed):
    rng = np.random.default_rng(seed)
    side = 3 + seed % 2
    text = random_text(rng, side, share=0.1 if side == 3 else 0.35)
    answers = list(drawings(text))
    shape = MazeShape(side)
    valid = is_shortest_path(tokens([text] * len(answers)), tokens(answers), shape)
    right = {a for a, v in zip(answers, valid, strict=True) if v}
    assert right == all_shortest(text, side)


def test_every_shortest_path_counts_and_no_change_of_it():
    rng = np.random.default_rng(5)
    side, shape = 7, MazeShape(7)
    for text in random_mazes(side, 20, seed=9):
        right = sorted(all_shortest(text, side))[:50]
        if not right:
            continue
        inputs, answers = tokens([text] * len(right)), tokens(right)
        assert is_shortest_path(inputs, answers, shape).all()
        changed = answers.copy()
        row, cell = np.arange(len(right)), rng.integers(side**2, size=len(right))
        changed[row, cell] = (changed[row, cell] + rng.integers(1, 6, len(right))) % 6
        legal = [decode(c) in set(right) for c in changed]
        assert is_shortest_path(inputs, changed, shape).tolist() == legal


def test_any_tokens_are_judged():
    shape = MazeShape(5)
    rng = np.random.default_rng(0)
    inputs, answers = rng.integers(0, 6, (2, 3000, 25))
    assert not is_shortest_path(inputs, answers, shape).any()
    assert not is_shortest_path(inputs, np.full_like(inputs, 255), shape).any()


@pytest.mark.parametrize(
    ("maze", "answer", "valid"),
    [
        ("S G      ", "SoG      ", True),
        ("S G      ", "S G      ", False),  # nothing drawn
        ("S G      ", "S Gooo   ", False),  # a longer way
        ("S G      ", "SoG     o", False),  # a stray cell
        ("SG       ", "SG       ", True),  # nothing to draw
        ("S#G######", "S#G######", False),  # no way at all
        ("SSG      ", "SSG      ", False),  # no maze
        ("S G     G", "SoG     G", False),
        ("S G\0     ", "SoG\0     ", True),  # PAD in the maze is blocked
        ("S\0G      ", "S\0Gooo   ", True),
        ("S\0G      ", "SoG      ", False),
    ],
)
def test_special_cases_of_the_judge(maze, answer, valid):
    pair = [encode(text)[None] for text in (maze, answer)]
    assert is_shortest_path(*pair, MazeShape(3)).tolist() == [valid]


def test_way_within_chosen_cells():
    maze = tokens(["S G      "])
    cells = np.ones((1, 9), bool)
    cells[0, 1] = False
    assert path_moves(cells, maze, MazeShape(3)).tolist() == [4]
    cells[0, 4] = False
    cells[0, 7] = False
    assert path_moves(cells, maze, MazeShape(3)).tolist() == [-1]


@needs_shared
def test_thousands_of_predictions_are_judged_in_a_second(published):
    inputs, labels, _ = published

    def judge():
        for _ in range(2):
            is_shortest_path(inputs, labels, MazeShape(30))

    assert least_seconds(judge) < 1
