# SPDX-License-Identifier: Apache-2.0
"""Tests of the rungs: which puzzles they hold, and the table of made-up results."""

import csv
import json

import numpy as np
import pytest

from benchmarks import rungs
from data_pipeline.sudoku.grid import SudokuShape
from data_pipeline.sudoku.solver import masks_of, solve


def model(step, exact, votes):
    """Results of weights after `step` TFLOP; every share is exact, or exact + 0.1."""
    rung = {
        "puzzles": 50,
        "by_step": {"1": 0.0, "16": exact},
        "votes": {"9": {"exact": exact + 0.1, "gained": 6, "lost": 1}} if votes else {},
    }
    return {"step": step, "training_flops": step * 1e12, "rungs": {"36 clues": rung}}


@pytest.mark.slow
def test_rungs_hold_puzzles_of_their_clues_and_ratings(tmp_path):
    hard = tmp_path / "hard.csv"
    hard.write_text(
        "question,answer,rating\n" + "".join(f"q{i},a,1\n" for i in range(9))
    )
    files = rungs.rung_files(tmp_path / "cache", 3, hard)
    assert list(files) == [*rungs.CLUES, *rungs.RATINGS, rungs.HARD]
    assert files[rungs.HARD].read_text().splitlines()[1:] == [
        "q0,a,1",
        "q1,a,1",
        "q2,a,1",
    ]
    for name, limits in (rungs.CLUES | rungs.RATINGS).items():
        rows = list(csv.DictReader(files[name].read_text().splitlines()))
        assert len(rows) == 3
        tokens = np.array(
            [
                [max(".123456789".index(c), 0) + 1 for c in row["question"]]
                for row in rows
            ]
        )
        shape = SudokuShape(3, 3)
        value = (
            (tokens > 1).sum(1)
            if name in rungs.CLUES
            else solve(masks_of(tokens, shape), shape).guesses
        )
        low, high = limits
        assert ((low <= value) & (value <= high)).all(), name


def test_table_and_figure_come_from_the_json_files(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    for name, found in {
        "b-2": model(2, 0.5, votes=True),
        "a-1": model(1, 0.25, votes=False),
    }.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    monkeypatch.setattr("sys.argv", ["rungs.py", f"--out={tmp_path}"])
    rungs.main()
    head, _, first, second = capsys.readouterr().out.splitlines()
    assert head.startswith("| weights | TFLOPs | rung | puzzles | 1 | 16 | 9 votes")
    assert first == "| a-1 | 1 | 36 clues | 50 | 0.0 | 25.0 | not run |"
    assert second == "| b-2 | 2 | 36 clues | 50 | 0.0 | 50.0 | 60.0 (+6 -1) |"
    assert (tmp_path / "rungs.png").read_bytes()[:4] == b"\x89PNG"


def test_without_results_the_command_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["rungs.py", f"--out={tmp_path / 'none'}"])
    with pytest.raises(SystemExit):
        rungs.main()
    assert "holds no measured weights" in capsys.readouterr().err


def test_the_updates_of_the_runs_before_count_as_well():
    def run(step, init):
        return {"step": step, "init": init}

    record = {"step": 5, "provenance": {"init": run(20, run(300, None))}}
    assert rungs.all_updates(record) == 325
    assert rungs.all_updates({"step": 5, "provenance": {}}) == 5


def test_too_few_steps_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["rungs", f"--out={tmp_path}", "--steps=8"])
    with pytest.raises(SystemExit) as stop:
        rungs.main()
    assert stop.value.code == 2
    assert "--steps = 8; expected at least 16" in capsys.readouterr().err
