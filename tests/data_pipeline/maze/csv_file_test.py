# SPDX-License-Identifier: Apache-2.0
import gzip
import json
import pathlib

import numpy as np
import pytest

from data_pipeline.errors import DataError
from data_pipeline.maze.csv_file import read_maze_csv
from data_pipeline.maze.grid import MazeShape
from tests.data_pipeline.maze.oracle import (
    SHARED,
    decode,
    drawings,
    is_line,
    needs_shared,
    random_text,
    rows_of,
)
from tests.helpers.timing import least_seconds

BAD = pathlib.Path(__file__).parents[1] / "bad"
CASES = [
    case
    for case in json.loads((BAD / "manifest.json").read_text())["cases"]
    if case["kind"] == "maze"
]
SHAPE = MazeShape(30)
HEADER = "source,question,answer,rating\n"


@pytest.fixture
def write(tmp_path):
    """A function that writes text or bytes to a file and returns its path."""

    def write(content, name="mazes.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def row(question, answer, rating="4"):
    """The CSV row of a question and an answer that are drawn as text."""
    return f"hand,{''.join(rows_of(question))},{''.join(rows_of(answer))},{rating}\n"


def test_rows_are_read_as_written():
    puzzles = read_maze_csv(BAD / "maze_ok.csv", SHAPE)
    lines = (BAD / "maze_ok.csv").read_text().splitlines()[1:]
    fields = [line.split(",") for line in lines]
    assert [decode(tokens) for tokens in puzzles.inputs] == [f[1] for f in fields]
    assert [decode(tokens) for tokens in puzzles.labels] == [f[2] for f in fields]
    assert puzzles.attributes["rating"].tolist() == [int(f[3]) for f in fields]
    assert puzzles.attributes["rating"].dtype == np.int64
    assert puzzles.inputs.dtype == puzzles.labels.dtype == np.uint8
    assert puzzles.inputs.flags.writeable


def test_manifest_holds_the_maze_cases():
    assert len(CASES) == 18


@pytest.mark.parametrize("case", CASES, ids=[case["file"] for case in CASES])
def test_files_are_taken_or_refused_as_the_manifest_says(case):
    path = BAD / case["file"]
    if case["expect"] != "reject":
        assert len(read_maze_csv(path, SHAPE)) > 0
        return
    with pytest.raises(DataError) as caught:
        read_maze_csv(path, SHAPE)
    named = {str(path) if n == "file" else n for n in case["error_should_name"]}
    assert not {name for name in named if name not in str(caught.value)}


def test_gzipped_file_loads_equally(write):
    path = write(gzip.compress((BAD / "maze_ok.csv").read_bytes()), "mazes.csv.gz")
    ok = read_maze_csv(BAD / "maze_ok.csv", SHAPE)
    assert read_maze_csv(path, SHAPE).digests() == ok.digests()


@needs_shared
def test_thousand_mazes_load_in_half_a_second():
    path = SHARED / "train.csv.gz"
    assert len(read_maze_csv(path, SHAPE)) == 1000
    assert least_seconds(lambda: read_maze_csv(path, SHAPE)) < 0.5


@pytest.mark.parametrize(
    ("question", "answer", "message"),
    [
        ("S.G ... ...", "SoG ... ...", None),
        ("SG. ... ...", "SG. ... ...", None),
        ("S#G ... ...", "S#G ooo ...", None),
        ("S.G ... ...", "S.G ooo ...", None),  # longer than needed
        ("S.G ... ...", "SoG ... ..o", "grid row 3, column 3 is not connected"),
        (
            "S.G ... ...",
            "SoG .o. ...",
            "line from S to G: 3 of its cells touch grid row 1, column 2",
        ),
        ("S.G ... ...", "SoG ooo ...", "path is not one line from S to G"),  # touches
        ("SG. ... ...", "SGo ... ...", "path is not one line from S to G"),
        ("S.G ... ...", "S.G ... ...", "column answer: no path from S to G"),
        (
            "S.. ... ..G",
            "So. ... .oG",
            "path not connected: from S it leads to grid row 1, column 2; "
            "is there an o missing at grid row 2, column 2",
        ),
        ("S.# ##. ..G", "So# ##. .oG", "from S it leads to grid row 1, column 2$"),
        (
            "S.G ... ...",
            "SGG ... ...",
            "differ at grid row 1, column 2: space against G",
        ),
        (
            "S.G ... ...",
            "S#G ooo ...",
            "differ at grid row 1, column 2: space against #",
        ),
        ("S.G #.. ...", "S.G ooo ...", "differ at grid row 2, column 1: # against o"),
        (
            "S#G ... ...",
            "S.G ooo ...",
            "differ at grid row 1, column 2: # against space",
        ),
    ],
)
def test_answers_must_be_one_line_through_the_maze(write, question, answer, message):
    path = write(HEADER + row(question, answer))
    if message is None:
        assert len(read_maze_csv(path, MazeShape(3))) == 1
        return
    with pytest.raises(DataError, match=rf"row 1 \(line 2\): .*({message})"):
        read_maze_csv(path, MazeShape(3))


@pytest.mark.parametrize("seed", range(4))
def test_taken_answers_are_exactly_the_lines_among_all_drawings(write, seed):
    question = random_text(np.random.default_rng(seed), 3, share=0.15)
    taken = set()
    for answer in drawings(question):
        path = write(f"{HEADER}x,{question},{answer},0\n")
        try:
            read_maze_csv(path, MazeShape(3))
        except DataError:
            continue
        taken.add(answer)
    assert taken == {answer for answer in drawings(question) if is_line(answer, 3)}


@pytest.mark.parametrize("rating", ["", " 4", "+4", "-1", "4.0", "٤", "nan", "9" * 19])
def test_ratings_that_are_no_plain_whole_numbers_are_refused(write, rating):
    path = write(HEADER + row("S.G ... ...", "SoG ... ...", rating))
    with pytest.raises(DataError, match="row 1 .*column rating: value .*whole number"):
        read_maze_csv(path, MazeShape(3))


def test_first_wrong_row_is_named_whatever_is_wrong_with_later_ones(write):
    good = row("S.G ... ...", "SoG ... ...")
    stray = row("S.G ... ...", "SoG ... ..o")
    letter = row("S.G ... ...", "SoG ... ..x")
    for rows, number in (
        (good + stray + letter, 2),
        (good + letter + stray, 2),
        (good + good + stray, 3),
    ):
        with pytest.raises(DataError, match=rf"row {number} \(line {number + 1}\)"):
            read_maze_csv(write(HEADER + rows), MazeShape(3))


@pytest.mark.parametrize("character", ["é", "\0", "X", "."])
def test_other_characters_are_named_with_their_place(write, character):
    text = row("S.G ... ...", "SoG ... ...").replace("SoG", f"So{character}")
    with pytest.raises(DataError, match="mazes.csv: ") as caught:
        read_maze_csv(write(HEADER + text), MazeShape(3))
    if character != "\0":
        found = (
            f"character {ascii(character)} at position 3 of 9 (grid row 1, column 3)"
        )
        assert f"column answer: {found}; allowed: # space S G o" in str(caught.value)
