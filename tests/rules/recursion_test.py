# SPDX-License-Identifier: Apache-2.0
"""States follow the paper's loops, and gradients stop where they should."""

import dataclasses
from functools import cache, partial
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.rules import judge
from trm_jax.model.model import BoundModel, init_params
from trm_jax.rules.base import Clock
from trm_jax.rules.latents import Latents
from trm_jax.rules.recursion import frozen, iterate, repeat
from trm_jax.rules.trm import TRM
from trm_jax.training.supervision import bind
from trm_jax.types import Batch

TIMES = 4
each_grad_times = pytest.mark.parametrize("grad_times", [0, 1, 2, TIMES])


def weigh(weights, state, i):
    """An iteration; each one has its own weight."""
    return jnp.tanh(weights[i] * state)


@each_grad_times
def test_only_the_last_iterations_carry_gradients(grad_times):
    weights, start = jnp.linspace(0.5, 1.5, TIMES), jnp.array([0.3, -0.7])

    def loss(weights, start):
        end, _ = iterate(weigh, weights, start, times=TIMES, grad_times=grad_times)
        return end.sum()

    def last_ones(weights):
        state = start
        for i in range(TIMES):
            state = weigh(
                weights if i >= TIMES - grad_times else frozen(weights), state, i
            )
        return state.sum()

    value, grads = jax.value_and_grad(loss, argnums=(0, 1))(weights, start)
    expected, wanted = jax.value_and_grad(last_ones)(weights)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(grads[0], wanted, rtol=1e-6)
    assert ((grads[0] != 0) == (np.arange(TIMES) >= TIMES - grad_times)).all()
    np.testing.assert_array_equal(grads[1], 0)  # none reaches the start


@each_grad_times
def test_keep_stacks_every_iteration(grad_times):
    weights, state = jnp.linspace(0.5, 1.5, TIMES), jnp.array([0.3, -0.7])

    def keep(state):
        return {"twice": 2 * state}

    args = {"times": TIMES, "grad_times": grad_times}
    end, kept = iterate(weigh, weights, state, keep=keep, **args)
    plain, nothing = iterate(weigh, weights, state, **args)
    assert nothing is None
    np.testing.assert_array_equal(end, plain)
    each = []
    for i in range(TIMES):
        state = weigh(weights, state, i)
        each.append(keep(state))
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)
    chex.assert_trees_all_close(kept, stacked, rtol=1e-6)
    np.testing.assert_array_equal(kept["twice"][-1], 2 * end)


@pytest.mark.parametrize("unroll", [1, 2, 7])
def test_repeat_applies_a_function_with_gradients_and_keeps_every_state(unroll):
    def end(state):
        return repeat(jnp.sin, state, 3, lambda s: s, unroll=unroll)

    def by_hand(state):
        return jnp.sin(jnp.sin(jnp.sin(state)))

    start = jnp.float32(0.3)
    state, kept = end(start)
    np.testing.assert_allclose(state, by_hand(start), rtol=1e-6)
    np.testing.assert_allclose(kept[0], jnp.sin(start), rtol=1e-6)
    np.testing.assert_array_equal(kept[-1], state)
    grad = jax.grad(lambda s: end(s)[0])(start)
    np.testing.assert_allclose(grad, jax.grad(by_hand)(start), rtol=1e-6)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Toy(BoundModel):
    """A model whose network is a function of `params`, and whose question is given."""

    module: Any = dataclasses.field(metadata={"static": True})

    def net(self, hidden):
        return self.module(self.params, hidden)

    def embed(self, inputs):
        return inputs

    def predict(self, y):
        return y, y[:, 0]


def deep_recursion(net, params, x, y, z, **settings):
    """y and z after one supervision step of TRM with this network."""
    rows = Batch(x, None, None, None, None)
    model, clock = Toy(params, None, None, net), Clock(None, 1, None)
    args = model, rows, Latents(y, z), jax.random.split(jax.random.key(0), 2), clock
    return TRM(**settings).step(*args)[0]


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
    chex.assert_trees_all_close(found, Latents(y, z), atol=1e-6)


def counting_net(weights, h):
    """Channel 1 counts the calls and picks the weight: each call has its own."""
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
        return deep_recursion(*args, h_cycles=3, l_cycles=2).y[..., 0].sum()

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
        return deep_recursion(toy_net, w, x, y0, z0, h_cycles=3, l_cycles=2).y.sum()

    def last(w, x):
        inner = z
        for _ in range(2):
            inner = toy_net(w, x + y + inner)
        return toy_net(w, y + inner).sum()

    expected = jax.grad(last, argnums=(0, 1))(w, x)
    found = jax.grad(whole, argnums=(0, 1))(w, x)
    chex.assert_trees_all_close(found, expected, rtol=1e-6, atol=1e-6)


def test_the_state_that_comes_in_is_data_even_before_a_single_cycle(toy):
    w, x, y, z = toy

    def loss(y, z):
        return deep_recursion(toy_net, w, x, y, z, h_cycles=1, l_cycles=2).y.sum()

    for grad in jax.grad(loss, argnums=(0, 1))(y, z):
        np.testing.assert_array_equal(grad, 0.0)


@pytest.mark.parametrize("remat", ["dots", "full"])
def test_remat_changes_no_gradient(toy, remat):
    w, *states = toy

    def loss(w, remat):
        settings = {"h_cycles": 2, "l_cycles": 3, "remat": remat}
        return deep_recursion(toy_net, w, *states, **settings).y.sum()

    expected = jax.grad(loss)(w, "none")
    np.testing.assert_allclose(jax.grad(loss)(w, remat), expected, rtol=1e-6)


@cache
def compiled_gradient(mixer, h_cycles, remat, dtype, unroll=1):
    """The lines of the jaxpr and bytes of temporaries for the gradient of one step."""
    network = {"layers": (mixer, "swiglu"), "d_model": 32, "dtype": dtype}
    sizes = {"attention": {"num_heads": 2}, "token_mlp": {"width": 24}}
    cycles = {"h_cycles": h_cycles, "l_cycles": 3, "remat": remat, "unroll": unroll}
    model = network | {mixer: sizes[mixer], "swiglu": {"width": 48}}
    recipe = judge.recipe_of(judge.tiny("trm", model=model, rule={"trm": cycles}))
    rule, module = recipe.rule, recipe.model
    params = jax.jit(partial(init_params, module, None))(jax.random.key(0))
    state = Latents(*jnp.ones((2, 4, module.config.seq_len, 32), dtype))
    rows = jax.tree.map(jnp.asarray, judge.make_rows(0, 4))
    keys, clock = jax.random.split(jax.random.key(0), 4), Clock(rows.puzzle_id, 3, None)

    def loss(params):
        model = bind(rule, module, params, {}, jnp.ones((4, 32)))
        return rule.step(model, rows, state, keys, clock)[0].y.sum()

    grad = jax.jit(jax.grad(loss))
    lines = str(jax.make_jaxpr(grad)(params)).count("\n")
    memory = grad.lower(params).compile().memory_analysis()
    return lines, memory.temp_size_in_bytes


@pytest.mark.optimized
@pytest.mark.parametrize("mixer", ["attention", "token_mlp"])
@pytest.mark.parametrize("unroll", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_program_and_memory_do_not_grow_with_h_cycles(mixer, unroll):
    short, long = (
        compiled_gradient(mixer, n, "none", "float32", unroll) for n in (3, 24)
    )
    assert long[0] == short[0]
    assert long[1] <= 1.02 * short[1]


@pytest.mark.optimized
@pytest.mark.parametrize("mixer", ["attention", "token_mlp"])
@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)]
)
def test_remat_saves_memory_and_dots_keeps_the_products(mixer, dtype):
    none, dots, full = (
        compiled_gradient(mixer, 3, remat, dtype)[1]
        for remat in ("none", "dots", "full")
    )
    assert full < 0.9 * dots < 0.8 * none


@pytest.mark.optimized
@pytest.mark.parametrize("mixer", ["attention", "token_mlp"])
def test_a_cycle_without_a_loop_takes_less_memory(mixer):
    case = mixer, 3, "none", "float32"
    assert compiled_gradient(*case, 3)[1] < 0.95 * compiled_gradient(*case, 1)[1]


@pytest.mark.optimized
@pytest.mark.skipif(
    jax.__version_info__ >= (0, 12), reason="XLA keeps the barriers since jax 0.12"
)
def test_on_a_cpu_remat_saves_no_memory_without_a_loop():
    """Why `updates_per_turn` keeps the loop, which older versions of jax need."""
    case = "attention", 3, "full", "float32"
    assert compiled_gradient(*case, 3)[1] > 1.5 * compiled_gradient(*case, 1)[1]


@pytest.mark.parametrize(
    ("settings", "updates"),
    [
        ({"remat": "none"}, 5),
        ({"remat": "dots"}, 1),
        ({"remat": "full"}, 1),
        ({"remat": "full", "unroll": 2}, 2),
        ({"remat": "none", "unroll": 1}, 1),
    ],
)
def test_the_cycle_with_gradients_is_unrolled_where_that_pays(
    settings, updates, toy, monkeypatch
):
    w, *states = toy
    seen = []
    monkeypatch.setattr(
        "trm_jax.rules.trm.repeat",
        lambda *args, unroll: seen.append(unroll) or repeat(*args, unroll=unroll),
    )
    deep_recursion(toy_net, w, *states, h_cycles=2, l_cycles=5, **settings)
    assert seen == [1, updates]
