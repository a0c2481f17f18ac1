# SPDX-License-Identifier: Apache-2.0
"""Voting against the published scorer, with an independent decoder of grids."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_pipeline import dihedral
from trm_jax.evaluation.voting import (
    KS,
    count_votes,
    pass_at_k,
    right_candidates,
    top_answers,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "arc_voting.npz"


def decoded(tokens):
    """The largest rectangle of colours from the corner, as a list of rows."""
    cells = [[int(t) - 2 for t in row] for row in tokens.reshape(30, 30)]
    best, best_rows, best_columns = 0, 0, 0
    width = 30
    for r in range(30):
        run = 0
        while run < width and 0 <= cells[r][run] <= 9:
            run += 1
        width = run
        if (r + 1) * width > best:
            best, best_rows, best_columns = (r + 1) * width, r + 1, width
    return [row[:best_columns] for row in cells[:best_rows]]


def undone(grid, name):
    """The task, and the grid before the augmentation that the name records."""
    task, *augmentation = name.split("|||")
    if augmentation and grid:
        transform, colours = augmentation
        grid = [[colours.index(str(cell)) for cell in row] for row in grid]
        back = dihedral.INVERSE[int(transform[1:])]
        grid = dihedral.turn(np.array(grid), back).tolist()
    return task, grid


def written(grid):
    """A unique encoding of the grid: its sizes, then its cells."""
    flat = [cell for row in grid for cell in row]
    sizes = [len(grid), len(grid[0]) if grid else 0]
    return np.array(sizes + flat + [99] * (900 - len(flat)), np.uint8)


@pytest.fixture(scope="module")
def golden():
    """Questions, answers, q_halt and solutions of the golden file, and its results."""
    with np.load(GOLDEN) as file:
        arrays = dict(file)
    parts = ("identifiers", "test_puzzles", "result", "submission")
    names, puzzles, result, submission = (json.loads(bytes(arrays[p])) for p in parts)
    tests = [(task, pair) for task, p in puzzles.items() for pair in p["test"]]
    keys = [(task, json.dumps(pair["input"])) for task, pair in tests]
    question, answers = [], []
    for puzzle_id, shown, predicted in zip(
        arrays["puzzle_identifiers"], arrays["inputs"], arrays["preds"], strict=True
    ):
        task, grid = undone(decoded(shown), names[puzzle_id])
        question.append(keys.index((task, json.dumps(grid))))
        answers.append(written(undone(decoded(predicted), names[puzzle_id])[1]))
    return {
        "rows": (np.array(question), np.stack(answers), arrays["q_halt_logits"]),
        "solutions": np.stack([written(pair["output"]) for _, pair in tests]),
        "task": np.array([list(puzzles).index(task) for task, _ in tests]),
        "pass": {int(key.split("@")[1]): share for key, share in result.items()},
        "attempts": [attempts for task in puzzles for attempts in submission[task]],
    }


def test_pass_at_k_is_that_of_the_published_scorer(golden):
    ballots = count_votes(*golden["rows"])
    right = right_candidates(ballots, golden["rows"][1], golden["solutions"])
    assert pass_at_k(ballots, right, golden["task"], KS) == golden["pass"]


def test_attempts_are_those_of_the_published_scorer(golden):
    answers = golden["rows"][1]
    best = top_answers(count_votes(*golden["rows"]), len(golden["task"]))
    assert len(best) == len(golden["attempts"])
    for (first, second), attempts in zip(best, golden["attempts"], strict=True):
        second = first if second < 0 else second
        for row, attempt in ((first, "attempt_1"), (second, "attempt_2")):
            expected = written(attempts[attempt])
            np.testing.assert_array_equal(answers[row], expected)
