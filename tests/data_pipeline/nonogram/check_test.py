# SPDX-License-Identifier: Apache-2.0
"""Files and folders of nonograms: what is read, what is refused, what is warned of."""

import json

import numpy as np
import pytest

from data_pipeline import check, tasks
from data_pipeline.nonogram.csv_file import read_nonogram_csv
from data_pipeline.nonogram.grid import FILLED, NonogramShape
from tests.data_pipeline.nonogram import oracle

FIVE = NonogramShape(5, 5)
ANSWERS = [
    "##.##/...../#.#.#/#####/...##",
    "#####/#...#/#.#.#/#...#/#####",
    "..#../.###./#####/..#../..#..",
]
QUESTIONS = [oracle.text(oracle.rows_of(a.replace("/", "\n"))) for a in ANSWERS]


@pytest.fixture
def write(tmp_path):
    """A function that writes rows (question, answer) and returns the path."""

    def write(*rows, name="nonograms.csv", rating="0"):
        path = tmp_path / name
        lines = [f"hand,{q},{a},{rating}" for q, a in rows]
        path.write_text("\n".join(["source,question,answer,rating", *lines]))
        return path

    return write


@pytest.fixture
def arrays(tmp_path):
    """A function that writes generated puzzles as an array folder."""

    def arrays(rows=5, cols=5, break_row=None):
        own = {"rows": rows, "cols": cols}
        data = tasks.load(
            {"task": "nonogram", "source": "generator", "nonogram": own}
            | {"train_puzzles": 6, "test_puzzles": 4}
        )
        sets = {"train": data.train, "test": data.test.puzzles}
        for split, puzzles in sets.items():
            folder = tmp_path / "arrays" / split
            folder.mkdir(parents=True)
            labels = puzzles.labels.copy()
            if break_row is not None and split == "test":
                labels[break_row, -1] ^= 1  # from empty to filled, or the reverse
            size = len(puzzles)
            starts = np.arange(size + 1)
            parts = {"inputs": puzzles.inputs, "labels": labels}
            parts |= {"puzzle_indices": starts, "group_indices": starts}
            parts["puzzle_identifiers"] = np.zeros(size, int)
            for name, array in parts.items():
                np.save(folder / f"all__{name}.npy", array)
            meta = {"seq_len": puzzles.inputs.shape[1], "vocab_size": 16}
            meta |= {"num_puzzle_identifiers": 1, "sets": ["all"]}
            meta |= {"pad_id": 0, "blank_identifier_id": 0, "ignore_label_id": 0}
            (folder / "dataset.json").write_text(json.dumps(meta))
        return tmp_path / "arrays", data

    return arrays


def run(capsys, path):
    code = check.main(["nonogram", str(path)])
    return code, *capsys.readouterr()


def test_a_right_file_gives_facts_and_no_warning(capsys, write):
    path = write(*zip(QUESTIONS, ANSWERS, strict=True))
    code, out, err = run(capsys, path)
    assert (code, err) == (0, "")
    puzzles = read_nonogram_csv(path, FIVE)
    assert out.split("\n")[:2] == [
        f"{path}: 3 rows of 5x5, filled share 0.560 +- 0.098, searched the first 3 for "
        "second solutions",
        puzzles.digest_line(),
    ]
    for question, answer, inputs, labels in zip(
        QUESTIONS, ANSWERS, puzzles.inputs, puzzles.labels, strict=True
    ):
        grid = oracle.rows_of(answer.replace("/", "\n"))
        assert inputs.tolist() == oracle.tokens(grid), question
        cells = labels.reshape(8, 8)[3:, 3:] == FILLED
        assert cells.astype(int).tolist() == grid
    assert puzzles.attributes["rating"].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("question", "answer", "rating", "parts"),
    [
        (
            QUESTIONS[1],
            ANSWERS[1].replace(".#.", "..."),
            "0",
            ["column answer: row 3 of the grid has the runs 1 1, its clue is 1 1 1"],
        ),
        (
            QUESTIONS[1],
            ANSWERS[1].replace("#.#.#", "##..#"),
            "0",
            ["column answer: row 3 of the grid has the runs 2 1, its clue is 1 1 1"],
        ),
        (
            "2/0/0/0/0|1/1/0/0/0",
            ".##../...../...../...../.....",
            "0",
            ["column answer: column 1 of the grid has the runs 0, its clue is 1"],
        ),
        (QUESTIONS[0], ANSWERS[0][1:], "0", ["column answer: row 1: 4 characters"]),
        (QUESTIONS[0].replace("5", "6"), ANSWERS[0], "0", ["column question: row 4"]),
        (
            QUESTIONS[0],
            ANSWERS[0],
            "-1",
            ["column rating: value '-1', expected a whole"],
        ),
    ],
)
def test_a_wrong_row_is_refused_in_one_line(
    capsys, write, question, answer, rating, parts
):
    path = write((question, answer), rating=rating)
    code, out, err = run(capsys, path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    for part in [f"error: {path}: row 1 (line 2): ", *parts]:
        assert part in err


def test_a_file_of_another_size_is_refused(capsys, write):
    path = write(("1/1/1/1|1/1/1/1/1", "#"))
    assert "row 1 (line 2): column question: 4 row clues" in run(capsys, path)[2]


def test_second_solutions_and_repeated_rows_are_warned_of(capsys, write):
    eye = "\n".join("." * i + "#" + "." * (4 - i) for i in range(5))
    rows = [(oracle.text(oracle.rows_of(eye)), eye.replace("\n", "/"))] * 2
    code, _, err = run(capsys, write(*rows))
    assert code == 0
    assert "duplicate: row 2 repeats row 1" in err
    assert err.count("has more than one solution") == 2


def test_turned_training_rows_in_the_test_file_are_warned_of(capsys, write, tmp_path):
    grid = oracle.rows_of(ANSWERS[2].replace("/", "\n"))
    turned = [list(column)[::-1] for column in zip(*grid, strict=True)]
    text = "/".join("".join(".#"[cell] for cell in row) for row in turned)
    train = write(*zip(QUESTIONS, ANSWERS, strict=True), name="train.csv")
    rows = [(oracle.text(turned), text), (QUESTIONS[0], ANSWERS[0])]
    test = write(*rows, name="test.csv")
    code, _, err = run(capsys, tmp_path)
    assert code == 0
    assert err.split("\n")[:2] == [
        f"warning: overlap: {test} row {i} is {train} row {j} or a turned form of it"
        for i, j in ((1, 3), (2, 1))
    ]


@pytest.mark.parametrize(("rows", "cols"), [(5, 5), (5, 6), (6, 5)])
def test_arrays_of_any_shape_are_judged_and_read(capsys, arrays, rows, cols):
    folder, data = arrays(rows, cols)
    code, out, err = run(capsys, folder)
    assert (code, err) == (0, "")
    assert f"train: 6 rows of {rows}x{cols}, " in out
    own = {"task": "nonogram", "nonogram": {"rows": rows, "cols": cols}}
    again = tasks.load(own | {"source": "arrays", "train": str(folder)})
    assert again.identity == data.identity


def test_a_corrupted_label_is_found(capsys, arrays):
    folder, _ = arrays(break_row=2)
    code, out, err = run(capsys, folder)
    assert (code, out) == (2, "")
    place = f"error: {folder / 'test'}: row 3 of the labels: row 5 of the grid has the"
    assert err.startswith(place)


def test_labels_that_are_not_complete_are_found(capsys, arrays):
    folder, _ = arrays()
    path = folder / "train" / "all__labels.npy"
    labels = np.load(path)
    labels[1, -2] = 0
    np.save(path, labels)
    err = run(capsys, folder)[2]
    assert (
        "row 2 of the labels: token 0 at cell row 5, column 4; expected 2 or 3" in err
    )


def test_arrays_that_hold_no_nonograms_are_refused(capsys, arrays):
    folder, _ = arrays()
    path = folder / "train" / "all__inputs.npy"
    np.save(path, np.load(path)[:, ::-1])
    assert "no nonogram of 5 to 10 rows and columns" in run(capsys, folder)[2]
