# SPDX-License-Identifier: Apache-2.0
"""solve.py: puzzles from text and files, what it shows, and what it writes."""

import json

import numpy as np
import pytest

from data_pipeline.drawing import MARKS, Look, grid_lines
from data_pipeline.errors import DataError
from data_pipeline.sudoku.grid import SudokuShape
from data_pipeline.sudoku.text import is_solution, parse_puzzle
from tests.helpers.compiled_once import run_commands_here
from tests.helpers.runs import (
    ROOT,
    as_flags,
    call,
    call_here,
    edit_config,
    short_flags,
)
from trm_jax.commands import solve, solve_show, train

FOUR = SudokuShape(2, 2)
SOLVED = "1234341221434321"


def test_a_puzzle_is_read_cell_by_cell():
    expected = [2, 1, 1, 1] * 4
    rows = ["1...", "1..."]
    with pytest.raises(DataError, match="given twice"):
        parse_puzzle("".join(rows * 2), FOUR)
    found = parse_puzzle("1..." + "0" * 12, FOUR)
    np.testing.assert_array_equal(found, expected[:4] + [1] * 12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("12", "2 characters found, 16 expected"),
        ("....5" + "." * 11, "'5' at row 2, column 1; allowed: . and 1-4"),
        ("x" + "." * 15, "'x' at row 1, column 1"),
    ],
)
def test_a_bad_puzzle_is_refused_with_its_place(text, message):
    with pytest.raises(DataError, match=message.replace(".", r"\.")):
        parse_puzzle(text, FOUR)


def test_boxes_are_framed_and_colours_only_asked_for():
    cells = np.arange(36).reshape(6, 6) % 6 + 2
    look = Look(tuple("?.123456"), box=(2, 3))
    marks = np.full((6, 6), "given", dtype="<U7")
    lines = grid_lines(cells, marks, look, colour=False)
    assert len(lines) == 6 + 4
    assert lines[0] == "+-------+-------+"
    assert lines[1] == "| 1 2 3 | 4 5 6 |"
    marks[0, 1], marks[0, 5] = "changed", "wrong"
    assert grid_lines(cells, marks, look, colour=False)[1] == "| 1*2 3 | 4 5!6 |"
    coloured = grid_lines(cells, marks, look, colour=True)
    assert coloured[1].count(MARKS["given"][1]) == 4
    assert coloured[1].count(MARKS["wrong"][1]) == 1
    assert "\033" not in "".join(lines)
    assert "*" not in coloured[1]
    plain = Look(tuple("abc"))
    assert grid_lines(
        np.array([[0, 2]]), np.array([["", ""]]), plain, colour=False
    ) == [
        "+-----+",
        "| a c |",
        "+-----+",
    ]


def test_a_solution_is_complete_keeps_the_givens_and_breaks_no_rule():
    answer = parse_puzzle(SOLVED, FOUR)
    question = parse_puzzle("1..." + "." * 12, FOUR)
    assert is_solution(answer, question, FOUR)
    assert not is_solution(answer, parse_puzzle("2" + "." * 15, FOUR), FOUR)
    assert not is_solution(question, question, FOUR)
    swapped = answer.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    assert not is_solution(swapped, np.ones(16, int), FOUR)


def a_record(answers, valid, solution=None):
    """The record of a 1x2 grid with these answers after each step."""
    before, steps = [1, 2], []
    for i, (tokens, good) in enumerate(zip(answers, valid, strict=True), 1):
        changed = sum(a != b for a, b in zip(before, tokens, strict=True))
        at = {"step": i, "tokens": tokens, "halt_probability": 0.5}
        steps.append(at | {"changed": changed, "valid": good})
        before = tokens
    return {
        "shape": [1, 2],
        "box": None,
        "symbols": [*"?.123"],
        "question": [1, 2],
        "given": [False, True],
        "solution": solution,
        "votes": None,
        "steps": steps,
    }


def test_steps_that_change_nothing_share_a_line():
    record = a_record([[3, 2], [3, 2], [3, 2], [4, 2]], [False] * 3 + [True])
    found = [*solve_show.as_text(record, colour=False)]
    assert found[0] == "+-----+\n| . 1 |\n+-----+"
    assert found[2].startswith("supervision step 1: first answer, sure of it to 50.0")
    assert found[2].endswith("|*2 1 |\n+-----+")
    assert found[3].startswith("supervision steps 2 to 3: nothing changed")
    assert found[4].startswith("supervision step 4: 1 cells changed")
    assert len(found) == 5


def test_a_long_run_shows_the_first_and_last_grid_and_the_changes_between():
    answers = [[3, 2]] * 5 + [[4, 2]] * 20
    record = a_record(answers, [False] * 5 + [True] * 20)
    found = [*solve_show.as_text(record, colour=False)]
    assert found[4].endswith("1 cells changed, sure of it to 50.0 %: r1c1 3")
    assert found[-1] == "answer\n+-----+\n| 3 1 |\n+-----+"
    assert sum("+-----+" in paragraph for paragraph in found) == 3


@pytest.mark.parametrize(
    ("valid", "solution", "expected"),
    [
        ([False, True, True], None, ("valid: yes (since supervision step 2)", True)),
        ([True, True, True], None, ("valid: yes (since supervision step 1)", True)),
        ([False, False, False], None, ("valid: no", False)),
        (
            [False, True, False],
            None,
            ("valid: no (but it was after supervision step 2)", False),
        ),
        ([None] * 3, [3, 2], ("right: yes", True)),
        ([None] * 3, [4, 2], ("right: no", False)),
        (
            [None] * 3,
            None,
            ("valid: unknown, since no rule and no solution judges it", True),
        ),
    ],
)
def test_the_verdict_is_that_of_the_last_answer(valid, solution, expected):
    record = a_record([[3, 2]] * 3, valid, solution)
    assert solve_show.verdict(record) == expected
    voted = record | {"votes": {"tokens": [4, 2], "valid": True}}
    if valid == [False] * 3:
        assert solve_show.verdict(voted) == ("valid: yes", True)


@pytest.mark.slow
@pytest.mark.parametrize("steps", [20, 300])
def test_solve_shows_every_step_and_judges_the_answer(tmp_path, monkeypatch, steps):
    run_commands_here(monkeypatch)
    where = f"--workdir={tmp_path}"
    trained = steps == 300  # after 300 steps it solves most puzzles
    flags = ["--config=configs/smoke.py"] if trained else short_flags()
    flags.append(f"--config.train.steps={steps}")
    assert call_here(train.main, where, *flags).returncode == 0
    first = call("solve.py", where, "--row=1")
    results = [first, call_here(solve.main, where, "--row=2")]
    codes = {result.returncode for result in results}
    assert codes <= {0, 1}
    assert 0 in codes or not trained
    for result in results:
        solved = "valid: yes" in result.stdout
        assert solved == (result.returncode == 0)
        assert ("valid: no" in result.stdout) == (result.returncode == 1)
        assert "supervision step 1:" in result.stdout
        assert "\033" not in result.stdout
    missing = call_here(solve.main, where, "--puzzle=nope.txt")
    assert (missing.returncode, missing.stderr) == (
        2,
        "error: nope.txt: no such file\n",
    )
    typed = call_here(solve.main, where, f"--puzzle={SOLVED}")
    assert typed.returncode == 0 or not trained
    wrong = call_here(solve.main, where, "--row=999")
    assert wrong.returncode == 2
    assert f"rows 1 to {64 if trained else 8}" in wrong.stderr
    _check_files(tmp_path, where)
    (tmp_path / "puzzles.txt").unlink()
    edit_config(tmp_path, lambda config: config["data"].update(seed=5))
    changed = call_here(solve.main, where, "--row=1")
    assert changed.returncode == 2
    assert "has changed since the run began" in changed.stderr


def test_without_arguments_shipped_weights_solve_a_puzzle_of_theirs(tmp_path):
    page, record = tmp_path / "page.html", tmp_path / "record.json"
    flags = [f"--html={page}", f"--json={record}", "--supervision_steps=8"]
    done = call("solve.py", *flags)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(record.read_text())["steps"]) == 8
    assert "puzzles.txt, question 1" in done.stdout
    assert "valid: yes" in done.stdout
    assert "<html" in page.read_text()


@pytest.mark.slow
def test_an_arc_task_is_solved_from_its_file_and_from_the_test_set(
    tmp_path, monkeypatch
):
    run_commands_here(monkeypatch)
    source = ROOT / "tests" / "data_pipeline" / "bad" / "arc_ok"
    where, flags = (
        f"--workdir={tmp_path}/run",
        {
            "data.train": source,
            "data.test_puzzles": 2,
            "data.num_augmentations": 3,
            "train.steps": 2,
            "train.eval_every": 0,
        },
    )
    trained = call_here(train.main, where, *as_flags("configs/arc_small.py", **flags))
    assert trained.returncode == 0, trained.stderr
    asked = ["--supervision_steps=2", "--votes=2"]
    row = call_here(solve.main, where, "--row=1", *asked)
    assert row.returncode == 1
    assert "right: no" in row.stdout
    assert "of 2 forms gave this answer" in row.stdout
    tasks = json.loads((source / "arc-agi_training_challenges.json").read_text())
    name, task = next(iter(tasks.items()))
    file = tmp_path / f"{name}.json"
    file.write_text(json.dumps(task))
    out = tmp_path / "record.json"
    done = call_here(solve.main, where, f"--puzzle={file}", *asked[:1], f"--json={out}")
    assert done.returncode == 0
    assert "valid: unknown" in done.stdout
    grid = task["test"][0]["input"]
    record = json.loads(out.read_text())
    cells = np.reshape(record["question"], record["shape"])
    found = cells[: len(grid), : len(grid[0])] - 2
    np.testing.assert_array_equal(found, grid)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workdir=a", "--weights_file=b"], "--weights_file exclude each other"),
        (["--weights_file=sudoku_6x6", "--weights=raw"], "--weights needs --workdir"),
        (["--step=0"], "--step needs --workdir=FOLDER"),
        (["--weights_file=sudoku_7x7"], "sudoku_7x7: no such file or folder"),
        (["--row=99"], "puzzles.txt: question 99; it has 5"),
    ],
)
def test_wrong_requests_for_weights_are_refused(monkeypatch, flags, message):
    run_commands_here(monkeypatch)
    done = call_here(solve.main, *flags)
    assert done.returncode == 2
    assert message in done.stderr


def _check_files(tmp_path, where):
    """A puzzle in a file; the record and the picture; votes; missing folders."""
    file = tmp_path / "puzzles.txt"
    file.write_text("1...\n..3.\n....\n...2\n")
    out = [f"--{kind}={tmp_path}/out.{kind}" for kind in ("json", "gif")]
    done = call_here(
        solve.main, where, f"--puzzle={file}", "--supervision_steps=5", *out
    )
    assert "puzzles.txt, question 1" in done.stdout
    record = json.loads((tmp_path / "out.json").read_text())
    assert len(record["steps"]) == 5
    assert record["question"] == [2, 1, 1, 1, 1, 1, 4, 1] + [1] * 7 + [3]
    assert (tmp_path / "out.gif").read_bytes()[:3] == b"GIF"
    file.write_text("1.....3........2\n" + SOLVED + "\n")
    second = call_here(solve.main, where, f"--puzzle={file}", "--row=2", "--votes=3")
    assert "puzzles.txt, question 2" in second.stdout
    assert "of 3 forms gave this answer" in second.stdout
    third = call_here(solve.main, where, f"--puzzle={file}", "--row=3")
    assert third.returncode == 2
    assert "puzzles.txt: question 3; it has 2" in third.stderr
    for kind in ("json", "html", "gif"):
        lost = call_here(solve.main, where, f"--{kind}={tmp_path}/no/out.{kind}")
        assert lost.returncode == 2
        assert f"no/out.{kind} cannot be written: No such file" in lost.stderr
