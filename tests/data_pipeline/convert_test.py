# SPDX-License-Identifier: Apache-2.0
"""Sudoku files of other kinds become the CSV format that a run reads."""

import gzip

import pytest

from data_pipeline import convert
from data_pipeline.errors import DataError
from data_pipeline.sudoku.csv_file import read_sudoku_csv
from data_pipeline.sudoku.grid import SudokuShape

QUESTION = "1.....3..4.....2"
ANSWER = "1324423124133142"
HARD = (
    "8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4.."
)
HARD_ANSWER = (
    "812753649943682175675491283154237896369845721287169534521974368438526917796318452"
)


def drawn(question, side, box):
    """A grid with lines between its boxes, as many programs print it."""
    rule = "+".join(["-" * (2 * box)] * (side // box))
    lines = []
    for i in range(0, len(question), side):
        row = question[i : i + side]
        parts = [" ".join(row[j : j + box]) for j in range(0, side, box)]
        lines += ["|".join(parts)] + ([rule] if i // side % box == box - 1 else [])
    return "\n".join(lines) + "\n"


SOURCES = {
    "plain.txt": QUESTION,
    "zeros.sdm": QUESTION.replace(".", "0") + "\n",
    "stars.txt": "# a comment\n\n" + QUESTION.replace(".", "*"),
    "lines.ss": drawn(QUESTION, 4, 2),
    "rows.sdk": "[Puzzle]\n" + "\n".join(QUESTION[i : i + 4] for i in (0, 4, 8, 12)),
    "kaggle.csv": f"quizzes,solutions\n{QUESTION.replace('.', '0')},{ANSWER}\n",
    "puzzles.csv": f"id,puzzle,solution,difficulty\n7,{QUESTION},{ANSWER},1.2\n",
    "no_answer.csv": f"puzzle\n{QUESTION}\n",
}


@pytest.mark.parametrize("name", SOURCES)
def test_a_file_of_another_kind_is_read(tmp_path, name, capsys):
    source, target = tmp_path / name, tmp_path / "out.csv"
    source.write_text(SOURCES[name])
    assert convert.main([str(source), str(target)]) == 0
    assert "1 puzzles" in capsys.readouterr().out
    header, row = target.read_text().splitlines()
    assert header == "source,question,answer,rating"
    assert row.split(",")[1:3] == [QUESTION, ANSWER]
    assert len(read_sudoku_csv(target, SudokuShape(2, 2))) == 1


def test_several_grids_in_a_file_and_packed_files(tmp_path):
    text = drawn(HARD, 9, 3)
    (tmp_path / "many.txt").write_text(f"# two grids\n{text}\n{text}")
    with gzip.open(tmp_path / "many.csv.gz", "wt") as file:
        file.write(f"question,answer,rating\n{HARD},{HARD_ANSWER},50\n")
    out = tmp_path / "out.csv"
    assert convert.convert(tmp_path / "many.txt", out) == 2
    rows = out.read_text().splitlines()[1:]
    assert rows[0] == rows[1]
    assert rows[0].split(",")[2] == HARD_ANSWER
    assert int(rows[0].split(",")[3]) > 0  # guesses of the solver
    assert convert.convert(tmp_path / "many.csv.gz", out) == 1
    assert out.read_text().splitlines()[1].endswith(",50")


@pytest.mark.parametrize("kind", ["parquet", "csv.zst"])
def test_files_that_need_a_package(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        arrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
        parquet.write_table(arrow.table({"question": [QUESTION]}), path)
    else:
        zstandard = pytest.importorskip("zstandard", reason="needs zstandard")
        with zstandard.open(path, "wt") as file:
            file.write(f"puzzle\n{QUESTION}\n")
    assert convert.convert(path, tmp_path / "out.csv") == 1


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.csv", "x,y\n1,2\n", "row 1: no question; columns found: 'x, y', one of"),
        ("a.txt", "123\n", "line 1: a grid of 3 rows expected"),
        ("a.txt", QUESTION[:-1] + "5", "line 1: character '5'"),
        ("a.txt", "." * 16, "line 1: the puzzle has many solutions, one is expected"),
        ("a.txt", "11" + "." * 14, "line 1: the puzzle has no solution, one is"),
        ("a.txt", "", "0 puzzles"),
        ("a.csv", f"puzzle,solution\n{QUESTION},{ANSWER[::-1]}\n", "row 1: the answer"),
        ("a.doc", "", "expected a name that ends in .txt"),
        ("a.txt", f"{QUESTION}\n{HARD}\n", "line 2: 81 cells, 16 expected"),
    ],
)
def test_what_cannot_be_converted_is_named(tmp_path, name, content, told, capsys):
    (tmp_path / name).write_text(content)
    target = tmp_path / "out.csv"
    assert convert.main([str(tmp_path / name), str(target)]) == 2
    assert told in capsys.readouterr().err
    assert not target.exists()


def test_usage_and_wrong_targets(tmp_path, capsys):
    assert convert.main(["--help"]) == 0
    assert convert.main(["one"]) == 2
    assert "Converts Sudoku files" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"ends in \.csv"):
        convert.convert(tmp_path / "a.txt", tmp_path / "out.txt")
