# SPDX-License-Identifier: Apache-2.0
"""Picks, diagnostics and the count of network calls, checked by hand."""

import flax.linen as nn
import jax
import numpy as np
import pytest

from tests.helpers.halting import halting_model, questions
from trm_jax.evaluation.calls import network_calls
from trm_jax.evaluation.chains import Chains
from trm_jax.evaluation.diagnostics import diagnostics, token_entropy
from trm_jax.evaluation.evaluate import EvalOutput, evaluate, joined, make_eval_step
from trm_jax.evaluation.search import (
    PICKS,
    Found,
    Way,
    curve,
    doubled,
    first_chains,
    found,
    picked,
    point,
)

# Two puzzles with three chains each. Answer 1 is right for the first, 2 for the other.
ROWS = Found(
    example=np.array([0, 0, 0, 1, 1, 1]),
    chain=np.array([0, 1, 2, 0, 1, 2]),
    answers=np.array([[7], [7], [1], [2], [8], [9]], np.uint8),
    is_right=np.array([0, 0, 1, 1, 0, 0], bool),
    q_halt=np.array([-1.0, 0.5, 0.5, -3.0, -2.0, 4.0]),
    mean_q=np.array([0.1, 0.4, 0.4, 0.3, 0.9, 0.8]),
    residual=np.array([0.3, 0.2, 0.1, np.inf, np.inf, np.inf]),
    steps=np.array([4, 4, 2, 4, 4, 1]),
)


@pytest.mark.parametrize(
    ("pick", "rows"),
    [
        ("q_halt", [1, 5]),  # the earlier of two equals
        ("mean_q", [1, 4]),
        ("residual", [2, 3]),
        ("majority", [0, 5]),  # the most votes, then the larger probability
        ("oracle", [2, 3]),
    ],
)
def test_picks(pick, rows):
    assert picked(ROWS, pick).tolist() == rows


def test_a_point_has_the_accuracy_of_every_pick_and_the_mean_calls():
    result = point(ROWS, 6, search="x")
    exact = {pick: of["accuracy"] for pick, of in result["exact"].items()}
    expected = {"q_halt": 0, "mean_q": 0, "residual": 1, "majority": 0, "oracle": 1}
    assert exact == expected
    assert result["calls"] == 6 * (10 + 9) / 2
    assert (result["puzzles"], result["search"]) == (2, "x")
    low, high = result["exact"]["oracle"]["accuracy_95"]
    assert low < 1 <= high
    fewer = point(first_chains(ROWS, 1), 6)
    assert fewer["calls"] == 6 * 4
    assert {of["accuracy"] for of in fewer["exact"].values()} == {0.5}


def test_the_oracle_is_never_worse_than_another_pick():
    rng = np.random.default_rng(0)
    for _ in range(20):
        count, chains = 30, int(rng.integers(1, 6))
        rows = count * chains
        answers = rng.integers(0, 2, (rows, 2)).astype(np.uint8)
        some = Found(
            np.repeat(np.arange(count), chains),
            np.tile(np.arange(chains), count),
            answers,
            answers.all(-1),
            *rng.normal(size=(3, rows)),
            np.ones(rows, int),
        )
        right = {pick: some.is_right[picked(some, pick)] for pick in PICKS}
        for pick in PICKS:
            assert (right["oracle"] >= right[pick]).all(), pick
        assert (right["oracle"] == some.is_right.reshape(count, -1).any(1)).all()


def test_diagnostics_by_hand():
    plain = first_chains(ROWS, 1)  # wrong for puzzle 0, right for puzzle 1
    notes = diagnostics(ROWS, plain)
    assert notes["tube_stability"] == {"solved": 0.0, "unsolved": 0.5}
    # Right against wrong q: 0.5 > -1, 0.5 = 0.5; and -3 < -2, -3 < 4.
    assert notes["guide_alignment"]["within"] == (0.75 + 0) / 2
    p = 1 / (1 + np.exp(-ROWS.q_halt))
    expected = np.corrcoef(p, ROWS.is_right)[0, 1]
    assert notes["guide_alignment"]["correlation"] == pytest.approx(expected)
    assert notes["residual_alignment"]["correlation"] is None  # some are infinite
    third = -(1 / 3 * np.log(1 / 3) + 2 / 3 * np.log(2 / 3))
    np.testing.assert_allclose(token_entropy(ROWS, 2), [third, np.log(3)])
    entropy = notes["cloud_token_entropy_nats"]
    assert entropy["solved"] == pytest.approx(np.log(3))
    assert entropy["unsolved"] == pytest.approx(third)


def output_of(way, steps):
    """Made-up results whose values count up, so that each row can be told apart."""
    rows = way.num_rows
    values = np.arange(steps * rows, dtype=np.float32).reshape(steps, rows)
    wants = np.zeros((steps, rows), bool)
    wants[1, ::2] = True
    return EvalOutput(
        predictions=np.repeat(np.arange(rows, dtype=np.uint8)[:, None], 16, 1),
        q_halt=values,
        wants_halt=wants,
        cells_right=values,
        all_right=values % 2 == 0,
        cell_loss=values,
        residual=values,
        doubt=values / 100,
        has_labels=np.ones(rows, bool),
    )


@pytest.mark.parametrize("refilled", [False, True])
def test_rows_are_read_at_their_step(refilled):
    way = Way(questions(4), 5, num_chains=3)
    output = output_of(way, 5)
    rows = found(way, output, refilled=refilled, last=4)
    assert rows.example.tolist() == [i for i in range(4) for _ in range(3)]
    assert rows.chain.tolist() == [0, 1, 2] * 4
    assert (rows.answers[:, 0] == np.arange(12)).all()
    assert (rows.q_halt == output.q_halt[3]).all()
    np.testing.assert_array_equal(rows.mean_q, 1 - np.float64(output.doubt[3]))
    assert rows.steps.tolist() == ([2, 4] * 6 if refilled else [4] * 12)


def test_forms_are_turned_back_and_numbered():
    way = Way(questions(3, votes=2), 5)
    output = output_of(way, 5)
    cells = np.arange(16, dtype=np.uint8)
    output = output._replace(
        predictions=np.stack([cells, cells[::-1]] * 3)  # one answer in two forms
    )
    rows = found(way, output, refilled=False)
    assert rows.chain.tolist() == [0, 1] * 3
    assert (rows.answers == cells).all()


@pytest.mark.parametrize(("cloud", "start"), [(1, 0), (1, 7), (3, 0), (3, 6)])
def test_batches_hold_every_chain_of_every_row_once(cloud, start):
    way = Way(questions(5), 2, num_chains=3, chains=Chains(cloud=cloud))
    places, inputs = [], []
    for rows, numbers in way.batches(4, 2, start=start):
        assert len(numbers) % 2 == 0  # devices
        assert len(numbers) % cloud == 0
        real = rows["weight"] > 0
        places += map(tuple, numbers[real].tolist())
        inputs += rows["inputs"][real].tolist()
    expected = [(row, chain) for row in range(5) for chain in range(3)][start:]
    assert places == expected
    assert inputs == [questions(5).inputs[row].tolist() for row, _ in expected]


def test_numbers_of_chains_are_doubled_up_to_the_budget():
    assert doubled(2, 2) == [2]
    assert doubled(2, 11) == [2, 4, 8, 11]
    assert doubled(16, 64) == [16, 32, 64]


def test_particles_are_evaluated_for_every_number_and_chains_once():
    asked = []

    def evaluated(way):
        asked.append((way.num_chains, way.chains.cloud))
        steps = np.full(way.num_rows, way.num_steps)
        some = [np.resize(array, (way.num_rows, *array.shape[1:])) for array in ROWS]
        example = np.repeat(np.arange(2), way.num_chains)
        chain = np.tile(np.arange(way.num_chains), 2)
        return Found(example, chain, *some[2:-1], steps)

    settings = {"counts": [2, 4], "calls_per_step": 6}
    way = Way(questions(2), 5, num_chains=4)
    points, last = curve("noise", way, evaluated, alone=False, **settings)
    assert [(p["chains"], p["calls"]) for p in points] == [(2, 60), (4, 120)]
    assert asked == [(4, 1)]
    points, last = curve("guided", way, evaluated, alone=True, **settings)
    assert [(p["chains"], p["calls"]) for p in points] == [(2, 60), (4, 120)]
    assert asked[1:] == [(2, 2), (4, 4)]
    assert len(last.example) == 8


def test_the_calls_of_a_search_are_those_that_are_computed():
    built, weights = halting_model()
    way = Way(questions(4), 3, num_chains=3, chains=Chains(noise=0.1))
    rows_called = []

    def counted(next_fun, args, kwargs, context):
        out = next_fun(*args, **kwargs)
        if context.method_name == "refine":
            jax.debug.callback(lambda h: rows_called.append(len(h)), out)
        return out

    with nn.intercept_methods(counted):
        step = make_eval_step(
            built.recipe, built.mesh, num_steps=way.num_steps, chains=way.chains
        )
        rows = way.batches(4, 1, start=0)
        output = joined([*evaluate(step, weights, rows, built.mesh)])
    jax.effects_barrier()
    calls = network_calls(built.recipe)
    result = point(found(way, output, refilled=False), calls)
    assert sum(rows_called) == 4 * result["calls"] == 4 * 3 * 3 * calls
