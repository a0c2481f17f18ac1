# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from trm_jax.evaluation import report
from trm_jax.evaluation.evaluate import EvalOutput
from trm_jax.evaluation.voting import wilson_interval

# Five rows, three steps; the last row has no labels and counts nowhere.
WANTS = np.array([[1, 0, 0, 0, 1], [0, 0, 1, 0, 1], [1, 0, 1, 1, 1]], bool)
RIGHT = np.array([[0, 0, 0, 0, 1], [1, 0, 1, 0, 1], [1, 1, 0, 0, 1]], bool)
# Halting probabilities after the last step: 0.95, 0.62, 0.69, 0.
Q_HALT = np.log(np.array([0.95, 0.62, 0.69, 1e-300, 0.5]))
Q_HALT -= np.log1p(-np.exp(Q_HALT))


@pytest.fixture
def output():
    q_halt = np.zeros((3, 5), np.float32)
    q_halt[-1] = Q_HALT
    return EvalOutput(
        predictions=np.zeros((5, 4), np.uint8),
        q_halt=q_halt,
        wants_halt=WANTS,
        cells_right=RIGHT.astype(np.float32),
        all_right=RIGHT,
        cell_loss=np.zeros((3, 5), np.float32),
        residual=np.zeros((3, 5), np.float32),
        doubt=np.zeros((3, 5), np.float32),
        has_labels=np.array([1, 1, 1, 1, 0], bool),
    )


def test_halting_counts_the_first_step_and_what_it_would_cost(output):
    assert report.halting(output) == {
        "first": [1, 1, 1],  # rows 0, 2, 3
        "never": 1,  # row 1, which stops after the last step
        "mean_steps": (1 + 3 + 2 + 3) / 4,
        "exact_accuracy": (0 + 1 + 1 + 0) / 4,
    }


def test_calibration_compares_probability_and_share_by_bin(output):
    found = report.calibration(output)
    rows = [
        (b["from"], b["to"], b["puzzles"], b["exact_accuracy"]) for b in found["bins"]
    ]
    assert rows == [(0.0, 0.1, 1, 0.0), (0.6, 0.7, 2, 0.5), (0.9, 1.0, 1, 1.0)]
    sure = [b["probability"] for b in found["bins"]]
    assert sure == pytest.approx([0, 0.655, 0.95], abs=1e-6)
    assert found["bins"][1]["exact_accuracy_95"] == wilson_interval(0.5, 2)
    assert found["ece"] == pytest.approx((2 * 0.155 + 0.05) / 4, abs=1e-6)


def test_a_probability_of_one_is_in_the_last_bin(output):
    q_halt = np.full((3, 5), 800.0, np.float32)
    (only,) = report.calibration(output._replace(q_halt=q_halt))["bins"]
    assert (only["to"], only["probability"]) == (1.0, 1.0)


def test_scores_by_attribute_have_intervals(output):
    low, high = report.by_attribute(output, np.array([7, 9, 7, 9, 7]))
    assert (low["from"], low["puzzles"], low["exact_accuracy"]) == (7, 2, 0.5)
    assert high["exact_accuracy_95"] == wilson_interval(0.5, 2)
