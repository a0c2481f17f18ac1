# SPDX-License-Identifier: Apache-2.0
"""Accuracy by supervision steps: that of evaluations, with intervals and the gap."""

import json

import numpy as np
import pytest

from tests.helpers.runs import call, metric_lines
from trm_jax.errors import ConfigError
from trm_jax.evaluation.evaluate import EvalOutput
from trm_jax.inspect import steps


def output_of(exact, has_labels):
    """An EvalOutput with these exact rows `s b`; a cell is right in every other one."""
    s, b = exact.shape
    zeros = np.zeros((s, b))
    return EvalOutput(
        predictions=np.zeros((b, 4), np.uint8),
        q_halt=zeros,
        wants_halt=zeros > 0,
        cells_right=np.where(exact, 1.0, 0.5),
        all_right=exact,
        cell_loss=zeros,
        residual=zeros,
        doubt=zeros,
        has_labels=has_labels,
    )


def test_the_gap_is_what_the_best_step_has_more_than_the_last():
    exact = np.zeros((5, 10), bool)
    for step, right in enumerate([1, 6, 8, 8, 5]):
        exact[step, :right] = True
    exact[:, 8:] = True  # rows without labels, which do not count
    found = steps.accuracy_by_step(output_of(exact, np.arange(10) < 8))
    assert found["puzzles"] == 8
    assert (found["best_step"], found["overthink"]) == (3, pytest.approx(3 / 8))
    rows = found["by_step"]
    assert [row["exact_accuracy"] for row in rows] == [1 / 8, 6 / 8, 1, 1, 5 / 8]
    assert rows[1]["cell_accuracy"] == pytest.approx(7 / 8)
    # Wilson 1927 by hand: 8 of 8 at z = 1.96 is [n / (n + z^2), 1].
    assert rows[2]["exact_accuracy_95"] == pytest.approx([8 / (8 + 1.96**2), 1], 1e-3)
    with pytest.raises(ConfigError, match="no puzzles with solutions"):
        steps.accuracy_by_step(output_of(exact, np.zeros(10, bool)))


def test_the_steps_of_training_have_the_accuracy_of_the_evaluation(run):
    found = steps.report(run)
    assert (found["step"], found["rows"], found["puzzles"]) == (20, 8, 8)
    assert found["training_loops"] == 4
    assert [row["steps"] for row in found["by_step"]] == list(range(1, 17))
    scored = [line for line in metric_lines(run) if "eval/exact_accuracy" in line][-1]
    fourth = found["by_step"][3]
    assert fourth["exact_accuracy"] == pytest.approx(scored["eval/exact_accuracy"])
    assert fourth["cell_accuracy"] == pytest.approx(scored["eval/cell_accuracy"])
    few = steps.report(run, steps=2, rows=3)
    assert (few["puzzles"], len(few["by_step"])) == (3, 2)
    assert "training had 4 steps" in steps.as_text(found)


def test_the_figure_is_drawn(run, tmp_path):
    pytest.importorskip("matplotlib")
    steps.draw(steps.report(run, steps=3), tmp_path / "steps.png")
    assert (tmp_path / "steps.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_the_command_writes_numbers_and_figure_and_names_what_is_wrong(run, tmp_path):
    pytest.importorskip("matplotlib")
    line = "-m", "trm_jax.inspect.steps", run, "--steps=3", f"--out={tmp_path}"
    done = call(*line)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "step_20.json").read_text())
    assert len(written["by_step"]) == 3
    assert "8 puzzles; most exact after" in done.stdout
    assert (tmp_path / "step_20.png").exists()
    failed = call("-m", "trm_jax.inspect.steps", run, "--steps=1")
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1].endswith("--steps = 1; expected 2 or more")
