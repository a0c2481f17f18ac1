# SPDX-License-Identifier: Apache-2.0
"""The files of the generator hold the puzzles that the generator makes."""

import numpy as np
import pytest

from data_pipeline import tasks
from data_pipeline.generate import main
from data_pipeline.settings import defaults


def settings(**common):
    data = defaults()
    data.update(common)
    data["sudoku"].update(box_rows=2, box_cols=2)
    return data


def test_files_hold_the_puzzles_of_the_generator(tmp_path):
    paths = [str(tmp_path / name) for name in ("train.csv", "test.csv")]
    flags = ["--train=30", "--test=10", "--clues=5,7", "--boxes=2x2", "--seed=3"]
    assert main([*paths, *flags]) == 0
    data = settings(source="generator", train_puzzles=30, test_puzzles=10, seed=3)
    data["sudoku"]["clues"] = (5, 7)
    made = tasks.load(data)
    read = tasks.load(settings(source="csv", train=paths[0], test=paths[1]))
    for one, other in (
        (made.train, read.train),
        (made.test.puzzles, read.test.puzzles),
    ):
        np.testing.assert_array_equal(one.inputs, other.inputs)
        np.testing.assert_array_equal(one.labels, other.labels)
        ratings = one.attributes["rating"], other.attributes["rating"]
        np.testing.assert_array_equal(*ratings)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--train=0", "--test=1"], "--train = 0; expected 1 or more"),
        (["--train=1", "--test=1", "--clues=a,b"], "'a,b'; expected two whole numbers"),
        (["--train=1", "--test=1", "--boxes=3x2"], "expected 2x2, 2x3 or 3x3"),
        (
            ["--train=1", "--test=1", "--clues=9,5"],
            "error: --clues = (9, 5); expected 1 <= fewest",
        ),
        (
            ["--train=200", "--test=1", "--boxes=2x2"],
            "--train = 200, --test = 1: only 36 different puzzles with --clues",
        ),
    ],
)
def test_wrong_requests_are_one_line(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "a.csv"), str(tmp_path / "b.csv"), *flags])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("a.csv", "old.csv", "old.csv exists; remove it, or name another file"),
        ("new/a.csv", "b.csv", "the folder {}/new does not exist"),
        ("a.csv", "./a.csv", "a.csv is named twice; expected two files"),
    ],
)
def test_no_file_is_overwritten(tmp_path, capsys, train, test, message):
    (tmp_path / "old.csv").write_text("kept")
    files = [f"{tmp_path}/{name}" for name in (train, test)]
    with pytest.raises(SystemExit) as ended:
        main([*files, "--train=1", "--test=1", "--boxes=2x2"])
    assert ended.value.code == 2
    assert message.format(tmp_path) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["old.csv"]
    assert (tmp_path / "old.csv").read_text() == "kept"
