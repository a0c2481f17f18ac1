# SPDX-License-Identifier: Apache-2.0
"""Tests of all registered operators, and of the one in CONTRIBUTING.md."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.operators.shift import Shift
from tests.model import operator_judge as judge
from trm_jax.model.network import free_of_decay
from trm_jax.model.sublayers import SUBLAYERS
from trm_jax.model.sublayers.attention import Attention
from trm_jax.model.sublayers.conv_swiglu import ConvSwiGlu
from trm_jax.model.sublayers.swiglu import SwiGlu, TokenMlp
from trm_jax.training.digest import state_digest
from trm_jax.training.sharding import path_string

# Operators that only tests register: one of CONTRIBUTING.md, and other settings.
OWN = {
    kind.section: kind
    for kind in (
        Shift,
        judge.with_settings(ConvSwiGlu, "conv_swiglu_grid", sides="grid"),
        judge.with_settings(ConvSwiGlu, "conv_swiglu_both", sides="both"),
        judge.with_settings(SwiGlu, "swiglu_normed", inner_norm=True),
        judge.with_settings(TokenMlp, "token_mlp_normed", inner_norm=True),
        judge.with_settings(Attention, "attention_2d", positions="rope_2d"),
        judge.with_settings(
            Attention, "attention_halves", positions="rope_2d_halves", inner_norm=True
        ),
    )
}


SLOW = pytest.mark.slow
VARIANTS = (  # they share the code of others
    *("mamba2_backward", "mamba2_both", "mamba1_four", "mamba1_column"),
    *("mamba1_row_column", "mamba2_column", "mamba2_row_column", "mamba2_four"),
    *("mamba1_backward", "mamba1_both", "conv_swiglu_both", "conv_swiglu_grid"),
    *("swiglu_normed", "token_mlp_normed", "attention_2d"),
    "attention_halves",
)
NAMES = [
    pytest.param(name, marks=SLOW) if name in VARIANTS else name
    for name in (*SUBLAYERS, *OWN)
]


@pytest.fixture(scope="module")
def own_registered():
    with pytest.MonkeyPatch.context() as patch:
        for own, kind in OWN.items():
            patch.setitem(SUBLAYERS, own, kind)
        yield


@pytest.fixture(scope="module", params=NAMES)
def name(request, own_registered):
    return request.param


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_shape_and_dtype_go_in_and_come_out(name, dtype):
    world = judge.alone(name)
    found = world.apply(world.params, world.hidden.astype(dtype))
    assert (found.shape, found.dtype) == (world.hidden.shape, dtype)
    assert jnp.isfinite(found).all()
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(world.params)}
    assert dtypes == {jnp.dtype(jnp.float32)}


def test_bfloat16_is_near_float32(name):
    world = judge.alone(name)
    expected = world.apply(world.params, world.hidden)
    found = world.apply(world.params, world.hidden.astype(jnp.bfloat16))
    error = jnp.abs(found.astype(jnp.float32) - expected).max()
    assert error < 0.04 * jnp.abs(expected).max()


def test_rows_do_not_mix(name):
    world = judge.alone(name)
    other = world.hidden.at[1].set(0)
    first, second = (world.apply(world.params, h) for h in (world.hidden, other))
    np.testing.assert_allclose(first[0], second[0], atol=1e-6)
    assert (first[1] != second[1]).any()


def test_every_parameter_has_a_gradient(name):
    world = judge.alone(name)
    grads = jax.jit(jax.grad(world.value, argnums=(0, 1)))(world.params, world.hidden)
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.isfinite(grad).all(), path
        assert (grad != 0).mean() > 0.9, path


@pytest.mark.slow
def test_derivatives_of_both_modes_are_those_of_finite_differences(name):
    world = judge.alone(name)
    with jax.enable_x64(True):
        for by_gradient, by_difference, by_tangent in judge.slopes(world):
            assert by_gradient == pytest.approx(by_difference, rel=1e-3, abs=0.03)
            assert by_tangent == pytest.approx(by_gradient, rel=1e-6)


def test_what_is_free_of_decay_is_there(name):
    world = judge.alone(name)
    leaves = jax.tree_util.tree_leaves_with_path(world.params)
    free = {p for p, _ in leaves if free_of_decay(f"net/0_{name}/{path_string(p)}")}
    assert {path_string(p) for p in free} == set(world.kind.no_decay)


JOINT = [pytest.param(name, marks=SLOW) for name in ("plain", "all")]


@pytest.fixture(scope="module", params=JOINT)
def registered(request, own_registered):
    left_out = set(VARIANTS) if request.param == "plain" else set()
    return tuple(name for name in SUBLAYERS if name not in left_out)


@pytest.fixture
def steps(registered, make_batch):
    """The run and states of a network of all operators on one device, in float64.

    In float64 round-off decides nothing. One network for all operators needs only one
    compilation.
    """
    with jax.enable_x64(True):
        yield list(judge.trained(registered, make_batch, 2))


def test_a_run_that_goes_on_from_a_saved_state_is_the_same_to_the_bit(
    steps, make_batch
):
    _, (built, first), (_, second) = steps
    shardings = jax.tree.map(lambda leaf: leaf.sharding, built.state_like)
    batch = judge.rows_of(built, make_batch, 1)
    after = built.train_step(jax.device_put(first, shardings), batch)
    assert state_digest(after) == state_digest(second)


@pytest.mark.slow
def test_two_devices_take_the_step_of_one(steps, registered, make_batch):
    _, (_, one), _ = steps
    _, (_, two) = judge.trained(registered, make_batch, 1, **{"mesh.data": 2})
    chex.assert_trees_all_equal(two.carry.batch, one.carry.batch)
    chex.assert_trees_all_close(two.carry.state, one.carry.state, atol=1e-5)
    chex.assert_trees_all_close(two.opt_state[0].m, one.opt_state[0].m, atol=1e-5)
