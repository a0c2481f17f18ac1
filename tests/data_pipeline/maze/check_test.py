# SPDX-License-Identifier: Apache-2.0
import json
import pathlib

import pytest

from data_pipeline.errors import DataError
from data_pipeline.maze.check import check
from data_pipeline.maze.csv_file import read_maze_csv
from data_pipeline.maze.grid import MazeShape
from tests.data_pipeline.maze.oracle import SHARED, needs_shared

BAD = pathlib.Path(__file__).parents[1] / "bad"
EITHER = [
    case
    for case in json.loads((BAD / "manifest.json").read_text())["cases"]
    if case["kind"] == "maze" and case["expect"] == "either"
]
SMALL = MazeShape(3)


@pytest.fixture
def write(tmp_path):
    """A function that writes rows (question, answer, rating) and returns the path."""

    def write(*rows):
        path = tmp_path / "mazes.csv"
        lines = ["source,question,answer,rating"]
        lines += [f"hand,{q},{a},{rating}".replace(".", " ") for q, a, rating in rows]
        path.write_text("\n".join(lines))
        return path

    return write


@pytest.mark.parametrize("case", EITHER, ids=[case["file"] for case in EITHER])
def test_what_a_loader_lets_pass_is_warned_of(case):
    _, warnings = check(BAD / case["file"])
    assert len(warnings) == 1
    for name in case["error_should_name"]:
        assert name in warnings[0]


@pytest.mark.parametrize("name", ["ok", "leading_space_ok"])
def test_right_files_give_no_warning(name):
    assert check(BAD / f"maze_{name}.csv")[1] == []


def test_refused_files_are_refused_here_too():
    with pytest.raises(DataError, match="2 starts"):
        check(BAD / "maze_two_starts.csv")


def test_facts_are_counted(write):
    path = write(("S.G......", "SoG......", 2), ("S#G.#....", "S#Go#oooo", 6))
    facts, warnings = check(path, SMALL)
    assert facts[0] == (
        f"{path}: 2 rows, wall share 0.111 +- 0.111, moves 2 to 6, mean 4.0, "
        "100.0% of the labels by the rule"
    )
    assert facts[1:] == [read_maze_csv(path, SMALL).digest_line()]
    assert warnings == []


def test_other_shortest_paths_are_counted_in_one_warning(write):
    down_first, right_first = "S..o..ooG", "Soo..o..G"
    question = "S.......G"
    rows = [(question, right_first, 4), (question, down_first, 4)]
    facts, warnings = check(write(*rows), SMALL)
    assert "50.0% of the labels by the rule" in facts[0]
    assert len(warnings) == 2
    assert warnings[0].endswith("duplicate: row 2 repeats row 1")
    assert "1 of 2 labels are another shortest path" in warnings[1]


def test_many_rows_alike_are_counted_not_listed(write):
    row = ("S.G......", "S.Gooo...", 1)
    _, warnings = check(write(*[row] * 13), SMALL)
    assert len(warnings) == 3 * 11
    assert warnings[10] == "... and 2 more rows like these"
    assert warnings[11].endswith("row 1: path not shortest: 4 moves, 2 possible")
    assert warnings[21] == "... and 3 more rows like these"
    assert warnings[22].endswith("row 1: rating 1, path 4")
    assert warnings[32] == "... and 3 more rows like these"


@needs_shared
def test_published_mazes_have_the_facts_that_their_description_states():
    facts, warnings = check(SHARED / "train.csv.gz")
    assert "1,000 rows, wall share 0.371" in facts[0]
    assert "moves 109 to 146" in facts[0]
    assert "100.0% of the labels by the rule" in facts[0]
    assert warnings == []
