# SPDX-License-Identifier: Apache-2.0
"""What chains draw, and the residual by which EqR picks, against its own numbers."""

import dataclasses
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.halting import BATCH, halting_model, questions
from tests.helpers.tiny import tiny_recipe
from trm_jax.errors import ConfigError
from trm_jax.evaluation.calls import (
    needs_num_steps,
    network_calls,
    starts_with_question,
)
from trm_jax.evaluation.chains import (
    Chains,
    Trail,
    draw_keys,
    explored,
    resampled,
    residual,
)
from trm_jax.evaluation.evaluate import evaluate, joined, make_eval_step
from trm_jax.evaluation.search import Found, Way, picked
from trm_jax.rules.trm import TRM

GOLDEN = Path(__file__).parents[1] / "golden" / "eqr_step.npz"
STEPS = 3


@pytest.mark.parametrize("window", [3, 0])
def test_residuals_and_ranking_are_those_of_eqr(window):
    golden = np.load(GOLDEN)
    logits, count = golden["restarts/logits"], int(golden["restarts/num_restarts"])
    expected = golden[f"restarts/scores_window{window}"]
    steps, rows = logits.shape[:2]
    trail = Trail(
        jnp.zeros(logits.shape[1:]),
        jnp.full((rows, window or steps - 1), 9.0),
        jnp.zeros(rows),
    )
    for i, of_step in enumerate(logits):
        trail, score = residual(trail, jnp.asarray(of_step), jnp.full(rows, i + 1))
    np.testing.assert_allclose(score.reshape(-1, count), expected, atol=1e-5)
    ranking = np.argsort(score.reshape(-1, count), kind="stable")
    np.testing.assert_array_equal(ranking, golden[f"restarts/ranking_window{window}"])
    if window:
        answers = golden["restarts/final_preds"]
        chosen = picked(found_of(np.asarray(score), count), "residual")
        first = np.arange(len(chosen)) * count + ranking[:, 0]
        np.testing.assert_array_equal(chosen, first)
        np.testing.assert_array_equal(answers[chosen], golden["restarts/chosen_preds"])


def found_of(score, count):
    rows = np.arange(len(score))
    no = np.zeros(len(score))
    return Found(
        rows // count, rows % count, np.zeros((len(score), 1), np.uint8), no > 0,
        no, no, score, no,
    )  # fmt: skip


def test_the_residual_forgets_the_puzzle_before():
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(4, 2, 3, 5)))
    trail = Trail(jnp.zeros((2, 3, 5)), jnp.zeros((2, 3)), jnp.zeros(2))
    steps = [[1, 1], [2, 2], [3, 1], [4, 2]]  # row 1 has a new puzzle after two steps
    scores = []
    for of_step, done in zip(logits, steps, strict=True):
        trail, score = residual(trail, of_step, jnp.asarray(done))
        scores.append(np.asarray(score))
    change = np.sqrt((np.diff(logits, axis=0) ** 2).sum(-1)).mean(-1)
    assert np.isinf(scores[0]).all()
    assert np.isinf(scores[2][1])
    np.testing.assert_allclose(scores[3], [change[:, 0].mean(), change[2, 1]])


@cache
def chain_output(chains, size=BATCH, first=0):
    built, weights = halting_model()
    step = make_eval_step(built.recipe, built.mesh, num_steps=STEPS, chains=chains)
    way = Way(questions(), STEPS, num_chains=3, chains=chains)
    rows = way.batches(size, 1, start=first)
    return joined([*evaluate(step, weights, rows, built.mesh)])


@pytest.mark.parametrize(
    "chains", [Chains(random_starts=True), Chains(noise=0.3)], ids=["starts", "noise"]
)
def test_chains_differ_and_chain_0_is_the_plain_evaluation(chains):
    built, weights = halting_model()
    plain = make_eval_step(built.recipe, built.mesh, num_steps=STEPS)
    rows = questions().batches(BATCH)
    expected = joined([*evaluate(plain, weights, rows, built.mesh)]).q_halt[-1]
    q_halt = chain_output(chains).q_halt[-1].reshape(11, 3)
    np.testing.assert_allclose(q_halt[:, 0], expected, rtol=1e-3)
    gaps = np.abs(q_halt[:, [1, 2, 2]] - q_halt[:, [0, 0, 1]])
    assert (gaps > 1e-3).all()


def test_draws_depend_on_row_chain_and_step_and_not_on_the_batch():
    chains = Chains(random_starts=True, noise=0.3)
    expected = chain_output(chains)
    other = chain_output(chains, size=5)
    np.testing.assert_allclose(expected.q_halt, other.q_halt, rtol=1e-3, atol=1e-4)
    numbers = jnp.array([[0, 0], [0, 1], [1, 0], [0, 0]])
    keys = [draw_keys(numbers, seed, jnp.array([0, 0, 0, 1])) for seed in (0, 1)]
    data = np.concatenate([jax.random.key_data(k) for k in keys])
    assert len(np.unique(data, axis=0)) == 8


def test_noise_and_starts_have_their_scale_and_a_draw_per_row_and_latent():
    built, _ = halting_model()
    config, count = built.recipe.model.config, 64
    like = built.state_like.carry
    zeros = jax.tree.map(
        lambda leaf: jnp.zeros((count, *leaf.shape[1:]), leaf.dtype), like
    )
    chain = jnp.arange(count) % 2
    keys = draw_keys(jnp.arange(count), 0, jnp.zeros(count, int))
    for chains, halted, std in (
        (Chains(noise=0.3), False, 0.3),
        (Chains(random_starts=True), True, 1.0),
        (Chains(random_starts=True), False, 0.0),  # only a new row starts
    ):
        carry = zeros._replace(halted=jnp.full(count, halted))
        after = explored(chains, config, carry, keys, chain)
        assert not after.halted.any()
        y, z = (np.asarray(leaf) for leaf in after.state)
        assert (y[::2] == 0).all()
        assert y[1::2].std() == pytest.approx(std, rel=0.02)
        if std:
            assert abs(np.corrcoef(y[1].ravel(), z[1].ravel())[0, 1]) < 0.2
            assert abs(np.corrcoef(y[1].ravel(), y[3].ravel())[0, 1]) < 0.2
        if halted:
            assert np.abs(y).max() < 2.3  # truncated at two sigma


def test_a_rule_without_latents_is_refused():
    built, _ = halting_model()
    carry = built.state_like.carry
    odd = carry._replace(state=carry.batch.inputs)
    config, keys = built.recipe.model.config, jax.random.split(jax.random.key(0), 8)
    with pytest.raises(ConfigError, match="no latents to perturb"):
        jax.eval_shape(
            lambda c: explored(Chains(noise=1.0), config, c, keys, c.steps), odd
        )


def test_particles_are_drawn_in_proportion_to_their_weights_within_their_cloud():
    weights = np.array([[0.5, 0.25, 0.25, 0.0], [0.1, 0.2, 0.3, 0.4]])
    q_halt = jnp.asarray(np.log(weights + 1e-30) - np.log1p(-weights)).reshape(-1)
    copies = np.zeros((200, 8))
    for seed in range(200):
        numbers = jnp.stack([jnp.arange(8) // 4, jnp.arange(8) % 4], axis=1)
        keys = draw_keys(numbers, seed, jnp.zeros(8, int))
        drawn = np.asarray(resampled(jnp.arange(8), q_halt, keys, 4))
        assert (drawn // 4 == np.arange(8) // 4).all()
        copies[seed] = np.bincount(drawn, minlength=8)
    assert (copies[:, :4] == [2, 1, 1, 0]).all()
    expected = 4 * weights[1]
    assert (np.abs(copies[:, 4:] - expected) < 1).all()
    np.testing.assert_allclose(copies[:, 4:].mean(0), expected, atol=0.12)


def test_a_cloud_moves_only_where_it_is_resampled():
    chains = Chains(noise=0.3)
    alone, cloud = chain_output(chains), chain_output(chains._replace(cloud=3))
    first = slice(0, 1)  # the first step is the same
    np.testing.assert_allclose(cloud.q_halt[first], alone.q_halt[first], rtol=1e-3)
    assert (np.abs(cloud.q_halt[1] - alone.q_halt[1]) > 1e-3).any()


def test_doubt_is_the_mean_of_the_steps_of_a_row_and_of_the_ancestors_of_a_particle():
    chains = Chains(noise=0.3)
    alone, cloud = chain_output(chains), chain_output(chains._replace(cloud=3))
    steps = np.arange(1, STEPS + 1)[:, None]
    mean = (1 / (1 + np.exp(alone.q_halt))).cumsum(0) / steps
    np.testing.assert_allclose(alone.doubt, mean, rtol=1e-4)
    now = 1 / (1 + np.exp(cloud.q_halt))
    before = (2 * cloud.doubt[1] - now[1]).reshape(-1, 1, 3)  # of the first step
    gaps = np.abs(before - now[0].reshape(-1, 3, 1))
    assert gaps.min(1).max() < 1e-4
    assert (gaps.argmin(1) != np.arange(3)).any(), "no particle was replaced"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timed(TRM):
    """A rule whose steps know how many there will be."""

    def infer(self, model, rows, state, keys, clock, keep=None):
        state = state._replace(y=state.y * clock.num_steps)
        return self.step(model, rows, state, keys, clock, keep)


def test_a_rule_whose_steps_depend_on_their_number_is_noticed():
    recipe = tiny_recipe()
    timed = recipe._replace(rule=Timed(h_cycles=2, l_cycles=2))
    assert needs_num_steps(timed)
    assert not needs_num_steps(recipe)


@pytest.mark.parametrize(
    ("changes", "calls"),
    [
        ({}, 6),
        ({"rule.trm.h_cycles": 3, "rule.trm.l_cycles": 4}, 15),
        ({"rule.trm.remat": "full"}, 6),
        ({"rule.name": "hrm"}, 6),
        ({"rule.name": "loop"}, 1),  # an evaluation counts loops
    ],
)
def test_network_calls_are_counted_in_the_trace(changes, calls):
    recipe = tiny_recipe(changes)
    assert network_calls(recipe) == calls
    assert starts_with_question(recipe) == (changes.get("rule.name") == "loop")
