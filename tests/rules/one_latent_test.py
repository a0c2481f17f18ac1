# SPDX-License-Identifier: Apache-2.0
"""Tests of the rules with one latent: Figure 4 of TRM, and URM."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.rules.judge import ROWS, first_model, make_rows, on_device, recipe_of, tiny
from trm_jax.rules.base import Clock
from trm_jax.rules.one_latent import OneLatent
from trm_jax.rules.urm import URM
from trm_jax.training.cost import step_flops
from trm_jax.training.supervision import bind, row_keys


def world_of(rule):
    recipe = recipe_of(tiny(rule, rule={rule: {"h_cycles": 2, "l_cycles": 3}}))
    return recipe, first_model(recipe)


@pytest.mark.parametrize(
    "rule",
    [
        OneLatent(h_cycles=2, l_cycles=3),
        OneLatent(h_cycles=2, l_cycles=3, unroll=1),
        URM(h_cycles=2, l_cycles=4),
    ],
)
def test_a_step_is_two_times_four_calls_the_last_four_with_gradients(rule):
    _, model = world_of("one_latent")
    assert rule.calls() == ("z",) * 8
    rows, keys = on_device(make_rows(0)), row_keys(jax.random.key(3), jnp.arange(ROWS))
    clock = Clock(jnp.zeros(ROWS, int), 3, jnp.int32(0))
    start = rule.start(model, rows, keys, training=True)

    def stepped(params):
        bound = bind(rule, model.module, params, model.constants, model.vectors)
        state, outputs = rule.step(bound, rows, start, keys, clock)
        return state.z, outputs.logits

    def by_hand(params):
        bound = bind(rule, model.module, params, model.constants, model.vectors)
        x, z = bound.embed(rows.inputs), start.z
        for call in range(8):
            z = jax.lax.stop_gradient(z) if call == 4 else z
            z = bound.net(z + x)
        return z, bound.predict(z)[0]

    found, expected = (jax.jit(fn)(model.params) for fn in (stepped, by_hand))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        found,
        expected,
    )
    grads = [
        jax.jit(jax.grad(lambda p, fn=fn: (fn(p)[1] ** 2).sum()))(model.params)
        for fn in (stepped, by_hand)
    ]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), *grads
    )


def test_a_step_costs_what_a_step_of_trm_costs():
    one, two = (world_of(rule)[0] for rule in ("one_latent", "trm"))
    assert step_flops(one, ROWS) == step_flops(two, ROWS)
