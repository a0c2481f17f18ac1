# SPDX-License-Identifier: Apache-2.0
"""read_maze_csv on damaged files."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.errors import DataError
from data_pipeline.maze.csv_file import read_maze_csv
from data_pipeline.maze.grid import MazeShape
from tests.data_pipeline.maze.oracle import decode, is_line, random_text, solution

HEADER = "source,question,answer,rating\n"
EDITS = st.lists(
    st.tuples(
        st.integers(0, 2000),
        st.sampled_from(["replace", "insert", "delete", "cut", "repeat", "swap"]),
        st.sampled_from(list(b'# SGo0123456789,"\r\n;\x00\xff\xef-')),
    ),
    min_size=1,
    max_size=4,
)


def small_file():
    rng = np.random.default_rng(0)
    texts = [random_text(rng, 6, share=0.25) for _ in range(8)]
    solved = [(text, solution(text, 6)) for text in texts]
    rows = [f"x,{q},{a},{a.count('o') + 1}\n" for q, a in solved if a]
    return (HEADER + "".join(rows)).encode()


def mutate(content, edits):
    content = bytearray(content)
    for position, edit, byte in edits:
        position %= len(content) + 1
        match edit:
            case "replace":
                content[position : position + 1] = bytes([byte])
            case "insert":
                content[position:position] = bytes([byte])
            case "delete":
                del content[position : position + 1]
            case "cut":
                del content[position + 100 :]
            case "repeat" | "swap":
                lines = content.split(b"\n")
                line = lines[position % len(lines)]
                lines = lines + [line] if edit == "repeat" else lines[::-1]
                content = bytearray(b"\n".join(lines))
    return bytes(content)


def check_damaged_file(folder, edits):
    """Check for a DataError that names the file, or for rows that are all correct."""
    path = folder / "damaged.csv"
    path.write_bytes(mutate(small_file(), edits))
    try:
        puzzles = read_maze_csv(path, MazeShape(6))
    except DataError as error:
        message = str(error)
    else:
        text = path.read_text(encoding="utf-8-sig")
        for pair in zip(puzzles.inputs, puzzles.labels, strict=True):
            question, answer = map(decode, pair)
            assert question in text
            assert answer in text
            assert question.replace(" ", "o") == answer.replace(" ", "o")
            assert is_line(answer, 6)
        assert len(puzzles) == len(puzzles.attributes["rating"]) > 0
        return
    assert str(path) in message


@given(edits=EDITS)
@settings(max_examples=200, deadline=None, database=None)
def test_damaged_file_is_refused_or_read_right(tmp_path_factory, edits):
    check_damaged_file(tmp_path_factory.getbasetemp(), edits)


@pytest.mark.slow
@given(edits=EDITS)
@settings(max_examples=5000, deadline=None, database=None)
def test_damaged_file_is_refused_or_read_right_at_length(tmp_path_factory, edits):
    check_damaged_file(tmp_path_factory.getbasetemp(), edits)
