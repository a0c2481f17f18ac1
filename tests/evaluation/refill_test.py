# SPDX-License-Identifier: Apache-2.0
"""Refill gives every row the bits that a fixed batch gives it, up to its last step."""

from functools import cache

import numpy as np
import pytest

from tests.helpers.halting import BATCH, halting_model, questions
from tests.helpers.tiny import tiny_built
from trm_jax.errors import ConfigError
from trm_jax.evaluation.chains import PLAIN, Chains
from trm_jax.evaluation.evaluate import (
    PER_STEP,
    evaluate,
    joined,
    make_eval_step,
    take_rows,
)
from trm_jax.evaluation.refill import evaluate_refilled, least_logit, make_refilled
from trm_jax.evaluation.search import Way

STEPS, PROBABILITY = 6, 0.74
RESTARTS = Chains(random_starts=True, noise=0.2)
WAYS = {
    "plain": Way(questions(), STEPS),
    "votes": Way(questions(votes=2), STEPS),
    "restarts": Way(questions(), STEPS, num_chains=3, chains=RESTARTS),
}


@cache
def fixed_step(chains, devices=1):
    built, _ = halting_model(devices)
    return make_eval_step(built.recipe, built.mesh, num_steps=STEPS, chains=chains)


@cache
def refilled(chains, devices=1):
    built, _ = halting_model(devices)
    return make_refilled(
        built.recipe,
        built.mesh,
        num_steps=STEPS,
        chains=chains,
        probability=PROBABILITY,
    )


@cache
def of_fixed_batch(name, devices=1):
    """All rows under the halting rule: each repeats its last step."""
    way = WAYS[name]
    built, weights = halting_model(devices)
    rows = way.batches(BATCH, devices, start=0)
    step = fixed_step(way.chains, devices)
    output = joined([*evaluate(step, weights, rows, built.mesh)])
    wants = output.wants_halt & (output.q_halt >= least_logit(PROBABILITY))
    first = np.where(wants.any(0), wants.argmax(0), STEPS - 1)
    step = np.minimum(np.arange(STEPS)[:, None], first)
    columns = np.arange(way.num_rows)
    fields = {key: getattr(output, key)[step, columns] for key in PER_STEP}
    fields["wants_halt"] = wants[step, columns]
    return output._replace(**fields), first


def of_refill(name, devices=1, start=0):
    way = WAYS[name]
    _, weights = halting_model(devices)
    rows = way.batches(BATCH, devices, start=start)
    return joined([*evaluate_refilled(refilled(way.chains, devices), weights, rows)])


def same(expected, found):
    for key in (*PER_STEP, "has_labels"):
        a, b = getattr(expected, key), getattr(found, key)
        np.testing.assert_array_equal(a, b, err_msg=key)


@pytest.mark.parametrize("name", WAYS)
def test_every_row_has_the_bits_of_a_fixed_batch_under_the_same_halting_rule(name):
    expected, last = of_fixed_batch(name)
    assert len(set(last)) >= 3  # the rows halt at different steps
    assert expected.q_halt.shape[1] == WAYS[name].num_rows
    same(expected, of_refill(name))


def test_the_answer_is_that_of_the_step_in_which_a_row_halts():
    expected, last = of_fixed_batch("plain")
    built, weights = halting_model()
    output = of_refill("plain")
    never = ~expected.wants_halt[-1]
    assert 0 < never.sum() < 11
    same_answers(output, expected, never)
    one_step = make_eval_step(built.recipe, built.mesh, num_steps=1)
    rows = WAYS["plain"].batches(BATCH, 1, start=0)
    early = joined([*evaluate(one_step, weights, rows, built.mesh)])
    assert 0 < (last == 0).sum() < 11
    same_answers(output, early, last == 0)


def same_answers(a, b, rows):
    np.testing.assert_array_equal(a.predictions[rows], b.predictions[rows])


def test_on_two_devices_too():
    expected, _ = of_fixed_batch("plain", devices=2)
    same(expected, of_refill("plain", devices=2))


@pytest.mark.parametrize("start", [1, 7])
def test_a_resumed_evaluation_continues_with_the_same_rows(start):
    whole = of_refill("restarts")
    rows = np.arange(start, WAYS["restarts"].num_rows)
    rest = of_refill("restarts", start=start)
    same(take_rows(whole, rows), rest)
    np.testing.assert_array_equal(whole.predictions[rows], rest.predictions)


def test_rows_come_in_order_and_before_the_last_one_is_done():
    _, weights = halting_model()
    rows = WAYS["plain"].batches(BATCH, 1, start=0)
    parts = [*evaluate_refilled(refilled(PLAIN), weights, rows)]
    assert len(parts) >= 2
    assert sum(len(part.predictions) for part in parts) == 11


def test_as_few_steps_are_computed_as_the_halting_allows():
    counted = []
    compiled = refilled(PLAIN)
    _, weights = halting_model()

    def step(*args):
        counted.append(1)
        return compiled.step(*args)

    rows = WAYS["plain"].batches(BATCH, 1, start=0)
    [*evaluate_refilled(compiled._replace(step=step), weights, rows)]
    _, last = of_fixed_batch("plain")
    # Each slot takes the next row as soon as it is free.
    slots = [0] * BATCH
    for steps in last + 1:
        slots[slots.index(min(slots))] += steps
    assert len(counted) == max(slots)
    assert len(counted) < STEPS * np.ceil(11 / BATCH)


def test_a_probability_is_compared_as_a_logit():
    assert least_logit(0.0) == -np.inf
    assert least_logit(1.0) == np.inf
    assert 1 / (1 + np.exp(-least_logit(0.97))) == pytest.approx(0.97)


def test_the_particles_of_a_cloud_are_refused():
    built, _ = halting_model()
    with pytest.raises(ConfigError, match="guided search share their steps"):
        make_refilled(built.recipe, built.mesh, num_steps=2, chains=Chains(cloud=2))


@pytest.mark.parametrize(
    "rule", [{"rule.name": "flow"}, {"rule.name": "wta", "rule.wta.inner": "flow"}]
)
def test_a_flow_is_refused(rule):
    built = tiny_built(rule)
    with pytest.raises(ConfigError, match="--refill: the rule samples in a fixed"):
        make_refilled(built.recipe, built.mesh, num_steps=2)
