# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from data_pipeline.errors import DataError
from data_pipeline.sudoku.grid import SudokuShape
from data_pipeline.sudoku.text import STYLES, grid_lines, is_solution, parse_puzzle
from tests.helpers.compiled_once import run_commands_here
from tests.helpers.runs import call, call_here, short_flags
from trm_jax.commands import solve, train

FOUR = SudokuShape(2, 2)
SIX = SudokuShape(2, 3)
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
    tokens = np.arange(36) % 6 + 2
    lines = grid_lines(tokens, SIX, lambda cell: "given", colour=False)
    assert len(lines) == 6 + 4
    assert lines[0] == "+-------+-------+"
    assert lines[1] == "| 1 2 3 | 4 5 6 |"
    coloured = grid_lines(tokens, SIX, lambda cell: "right", colour=True)
    assert coloured[1].count(STYLES["right"]) == 6
    assert "\033" not in "".join(lines)


def test_a_solution_is_complete_keeps_the_givens_and_breaks_no_rule():
    answer = parse_puzzle(SOLVED, FOUR)
    question = parse_puzzle("1..." + "." * 12, FOUR)
    assert is_solution(answer, question, FOUR)
    assert not is_solution(answer, parse_puzzle("2" + "." * 15, FOUR), FOUR)
    assert not is_solution(question, question, FOUR)
    swapped = answer.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    assert not is_solution(swapped, np.ones(16, int), FOUR)


@pytest.mark.parametrize("steps", [20, pytest.param(300, marks=pytest.mark.slow)])
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
        solved = "no rule is broken" in result.stdout
        assert solved == (result.returncode == 0)
        assert "supervision step 1:" in result.stdout
        assert "\033" not in result.stdout
    typed = call_here(solve.main, where, f"--puzzle={SOLVED}")
    assert typed.returncode == 0 or not trained
    assert ("solved in" in typed.stdout) == (typed.returncode == 0)
    wrong = call_here(solve.main, where, "--row=999")
    assert wrong.returncode == 2
    assert f"rows 1 to {64 if trained else 8}" in wrong.stderr
