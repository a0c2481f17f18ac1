# SPDX-License-Identifier: Apache-2.0
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.tiny import tiny_config
from trm_jax.model.model import TRM, init_variables
from trm_jax.rules.recursion import deep_recursion, latent_recursion


def toy_net(w, h):
    return jnp.tanh(h @ w)


@pytest.fixture
def toy():
    keys = jax.random.split(jax.random.key(0), 4)
    w = jax.random.normal(keys[0], (3, 3))
    return w, *(jax.random.normal(k, (2, 5, 3)) for k in keys[1:])


def test_states_follow_the_papers_loops(toy):
    w, x, y0, z0 = toy
    y, z = y0, z0
    for _ in range(3):
        for _ in range(4):
            z = toy_net(w, x + y + z)
        y = toy_net(w, y + z)
    found = deep_recursion(toy_net, w, x, y0, z0, h_cycles=3, l_cycles=4)
    chex.assert_trees_all_close(found, (y, z), atol=1e-6)


def counting_net(weights, h):
    """Channel 1 counts calls and picks the weight: every call has one of its own."""
    value, count = h[..., 0], h[..., 1]
    weight = weights[count.astype(jnp.int32)]
    return jnp.stack([jnp.tanh(weight * value), count + 1], axis=-1)


def calls_of_each_cycle(h_cycles, l_cycles):
    """The counts that counting_net sees, by h-cycle."""
    y = z = 0
    cycles = []
    for _ in range(h_cycles):
        seen = []
        for _ in range(l_cycles):
            seen.append(y + z)
            z = y + z + 1
        seen.append(y + z)
        y = y + z + 1
        cycles.append(seen)
    return cycles


def test_only_the_last_h_cycle_has_gradients():
    cycles = calls_of_each_cycle(h_cycles=3, l_cycles=2)
    last, earlier = cycles[-1], cycles[0] + cycles[1]
    assert not set(last) & set(earlier)
    weights = jnp.linspace(0.5, 1.5, max(last) + 1)
    start = jnp.zeros((1, 1, 2)).at[..., 0].set(0.3)

    def loss(weights, x, y, z):
        args = (counting_net, weights, x, y, z)
        return deep_recursion(*args, h_cycles=3, l_cycles=2)[0][..., 0].sum()

    x = jnp.zeros_like(start).at[..., 0].set(0.7)
    grads = jax.grad(loss, argnums=(0, 1, 2, 3))(weights, x, start, start)
    np.testing.assert_array_equal(grads[0][np.array(earlier)], 0.0)
    assert (grads[0][np.array(last)] != 0).all()
    assert grads[1][..., 0] != 0
    for carried in grads[2:]:
        np.testing.assert_array_equal(carried, 0.0)


def test_gradients_are_those_of_the_last_cycle_alone(toy):
    w, x, y0, z0 = toy
    y, z = deep_recursion(toy_net, w, x, y0, z0, h_cycles=2, l_cycles=2)

    def whole(w, x):
        return deep_recursion(toy_net, w, x, y0, z0, h_cycles=3, l_cycles=2)[0].sum()

    def last(w, x):
        return latent_recursion(partial(toy_net, w), x, y, z, l_cycles=2)[0].sum()

    expected = jax.grad(last, argnums=(0, 1))(w, x)
    found = jax.grad(whole, argnums=(0, 1))(w, x)
    chex.assert_trees_all_close(found, expected, rtol=1e-6, atol=1e-6)


def test_one_h_cycle_carries_gradients_to_its_start(toy):
    w, x, y, z = toy

    def loss(z):
        args = (toy_net, jax.lax.stop_gradient(w), x, y, z)
        return deep_recursion(*args, h_cycles=1, l_cycles=2)[0].sum()

    # The boundary stop stands before the only cycle: the carry is data.
    np.testing.assert_array_equal(jax.grad(loss)(z), 0.0)


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_remat_changes_no_gradient(toy, remat):
    w, x, y, z = toy

    def loss(w, remat):
        args = (toy_net, w, x, y, z)
        return deep_recursion(*args, h_cycles=2, l_cycles=3, remat=remat)[0].sum()

    expected = jax.grad(loss)(w, "none")
    np.testing.assert_allclose(jax.grad(loss)(w, remat), expected, rtol=1e-6)


def compiled_gradient(mixer, h_cycles, remat="none", dtype="float32"):
    """(number of jaxpr equations, bytes of temporaries) of one gradient."""
    config = tiny_config(layers=(mixer, "swiglu"), dtype=dtype)
    model = TRM(config)
    params, _ = init_variables(model, jax.random.key(0))
    state = jnp.ones((4, config.seq_len, config.d_model), dtype)

    def net_fn(params, h):
        return model.apply({"params": params}, h, method="refine")

    def loss(params):
        args = (net_fn, params, state, state, state)
        kwargs = {"h_cycles": h_cycles, "l_cycles": 2, "remat": remat}
        return deep_recursion(*args, **kwargs)[0].sum()

    grad = jax.jit(jax.grad(loss))
    lines = str(jax.make_jaxpr(grad)(params)).count("\n")
    memory = grad.lower(params).compile().memory_analysis()
    return lines, memory.temp_size_in_bytes


def test_program_and_memory_do_not_grow_with_h_cycles(mixer):
    short, long = compiled_gradient(mixer, 3), compiled_gradient(mixer, 24)
    assert long[0] == short[0]
    assert long[1] <= 1.02 * short[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_remat_saves_memory_and_dots_keeps_the_products(mixer, dtype):
    none, dots, full = (
        compiled_gradient(mixer, 3, remat, dtype)[1]
        for remat in ("none", "dots", "full")
    )
    assert full < 0.9 * dots < 0.8 * none
