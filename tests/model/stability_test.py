# SPDX-License-Identifier: Apache-2.0
"""The hybrids stay finite however often they are applied, thanks to the post-norm."""

import dataclasses
from functools import partial

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.default import LAYERS
from tests.helpers.tiny import tiny_built
from tests.ops.cases import NOT_OPTIMISED
from trm_jax.model.layers import rms_norm
from trm_jax.model.network import Network
from trm_jax.model.sublayers import operator
from trm_jax.training.step import loss_and_grads
from trm_jax.training.supervision import refill, row_keys

HYBRIDS = ("mamba2_attn", "mamba2_mlp_t")
ROWS = 4


class PreNorm(nn.Module):
    """The same sublayers under the same names, as h = h + f(rms(h))."""

    config: object

    @nn.compact
    def __call__(self, hidden):
        for i, name in enumerate(self.config.layers):
            kind, c = operator(name), self.config
            sizes = c.operator(kind.section), c.grid_shape, c.prefix_len
            sublayer = kind(*sizes, name=f"{i}_{name}")
            hidden = hidden + sublayer(rms_norm(hidden, axis=kind.norm_axis))
        return hidden


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=pytest.mark.slow) for name in HYBRIDS],
)
def built(request):
    changes = {"train.batch_size": ROWS, "eval.batch_size": ROWS}
    changes |= {"rule.trm.h_cycles": 1, "model.layers": LAYERS[request.param]}
    return tiny_built(changes)


def test_losses_and_gradients_are_finite_for_64_supervision_steps(built, make_batch):
    recipe, state = built.recipe, built.init()
    config = recipe.model.config
    batch = jax.tree.map(jnp.asarray, make_batch(0, config, ROWS))
    carry = refill(state.carry, batch)
    vectors = jnp.zeros((ROWS, config.puzzle_width), jnp.float32)
    never = jnp.full(ROWS, 1000, jnp.int32)
    halting = dataclasses.replace(recipe.halting, max_supervision_steps=1000)
    recipe = recipe._replace(halting=halting)
    weights = state.params, state.constants, state.step
    keys = row_keys(jax.random.key(0), jnp.arange(ROWS))

    def step(carry, _):
        (grads, metrics), (_, carry) = loss_and_grads(
            recipe, ROWS, weights, vectors, carry, keys, never
        )
        finite = [jnp.isfinite(v).all() for v in jax.tree.leaves((grads, carry))]
        return carry, (jnp.stack(finite).all(), metrics["loss"][0])

    scan = partial(jax.lax.scan, step, length=64)
    run = jax.jit(scan, compiler_options=NOT_OPTIMISED)
    carry, (finite, losses) = run(carry)
    assert finite.all()
    assert np.isfinite(losses).all()
    assert len(np.unique(losses)) > 32  # the recursion does not stand still
    axis = 1 if config.layers[-1] == "token_mlp" else -1
    for feature in carry.state:
        np.testing.assert_allclose(jnp.square(feature).mean(axis), 1, atol=0.01)


def rms_after(network, params, hidden, times):
    """Root mean square after each number of applications."""

    def apply(hidden, _):
        hidden = network.apply({"params": params}, hidden)
        return hidden, jnp.sqrt(jnp.square(hidden).mean())

    scan = jax.jit(partial(jax.lax.scan, apply, length=max(times)))
    return scan(hidden)[1][jnp.array(times) - 1]


def test_with_pre_norm_the_residual_grows_with_every_application(built):
    config = built.recipe.model.config
    shape = (ROWS, config.seq_len, config.d_model)
    hidden = rms_norm(jax.random.normal(jax.random.key(1), shape, jnp.float32))
    params = jax.jit(Network(config).init)(jax.random.key(0), hidden)["params"]
    same = jax.eval_shape(PreNorm(config).init, jax.random.key(0), hidden)["params"]
    chex.assert_trees_all_equal_shapes(same, params)

    times = (16, 64, 256)
    post = rms_after(Network(config), params, hidden, times)
    np.testing.assert_allclose(post, 1, atol=1e-3)
    pre = rms_after(PreNorm(config), params, hidden, times)
    assert pre[0] > 5
    assert (pre[1:] / pre[:-1] > 2).all()  # it grows at least like sqrt(depth)
