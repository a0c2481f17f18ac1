# SPDX-License-Identifier: Apache-2.0
"""What only HRM does; tests/training/parity_test.py compares its numbers."""

import dataclasses
import math
from fractions import Fraction
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.golden_trm import GOLDEN
from tests.rules import judge
from trm_jax import api
from trm_jax.errors import ConfigError
from trm_jax.rules.base import Clock
from trm_jax.rules.halting import halt
from trm_jax.rules.hrm import HRM, HRMOutputs
from trm_jax.rules.trm import TRM
from trm_jax.training.build import build
from trm_jax.training.cost import step_flops
from trm_jax.training.supervision import begin, bind

FILE = np.load(GOLDEN / "hrm_attn.npz")


@pytest.mark.parametrize(
    ("variant", "sizes"),
    [
        ("sudoku", {"vocab_size": 11, "grid_shape": (9, 9)}),
        ("maze", {"vocab_size": 6, "grid_shape": (30, 30)}),
        ("arc", {"vocab_size": 12, "grid_shape": (30, 30)}),
    ],
)
def test_the_recipes_have_the_published_number_of_parameters(variant, sizes):
    config = api.get_config(f"hrm:{variant}")
    config.mesh.data = 1
    built = build(config.to_dict(), sizes | {"num_puzzles": 1, "blank": 1})
    leaves = jax.tree.leaves(built.state_like.params)
    count = sum(math.prod(leaf.shape) for leaf in leaves)
    assert count == FILE[f"full_size_parameters/{variant}"]
    if variant == "sudoku":  # 64 layers forward, 24 of them for the target
        assert step_flops(built.recipe, 1) == pytest.approx(36.7e9, rel=0.01)


def test_halting_and_exploration_follow_the_published_table():
    q = jnp.stack([FILE[f"explore/q_{k}_logits"] for k in ("halt", "continue")], -1)
    answer = HRM().answer(HRMOutputs(jnp.zeros((64, 1, 7)), q, None, None))
    explores = FILE["explore/uniform"] < FILE["explore/prob"]
    least = jnp.where(explores, FILE["explore/drawn_min_steps"], 0)
    steps = jnp.asarray(FILE["explore/steps"])
    most = int(FILE["explore/halt_max_steps"])
    found = halt(answer.wants_halt, steps, least, max_steps=most)
    np.testing.assert_array_equal(found, FILE["explore/halted"])


def test_without_a_continue_head_a_row_halts_above_0():
    q = jnp.array([[-1.0, -9.0], [0.1, 9.0]])
    outputs = HRMOutputs(jnp.zeros((2, 1, 7)), q, None, None)
    assert HRM(continue_head=False).answer(outputs).wants_halt.tolist() == [False, True]
    assert HRM().answer(outputs).wants_halt.tolist() == [True, False]


def test_one_network_the_last_cycle_and_no_continue_head_are_trm():
    cycles = {"h_cycles": 3, "l_cycles": 2}
    like = HRM(share_network=True, grad_calls=3, continue_head=False, **cycles)
    world = judge.begun("trm")
    ours, theirs = (
        world._replace(recipe=world.recipe._replace(rule=rule))
        for rule in (like, TRM(**cycles))
    )

    def results(world):
        def total(params, vectors):
            carry, outputs = judge.one_step(world, world.carry, (params, vectors))
            losses = world.recipe.rule.loss(outputs, world.carry.batch)
            return losses.total.sum(), (carry.state, outputs.logits)

        args = world.state.params, judge.vectors_of(world)
        return jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))(*args)

    chex.assert_trees_all_close(results(ours), results(theirs), rtol=1e-6, atol=1e-6)


def in_float64(world):
    """The same weights, states and batch for a model of this type."""
    recipe = judge.recipe_of(judge.tiny("hrm", model={"dtype": "float64"}))

    def wide(tree):
        return jax.tree.map(lambda leaf: leaf.astype(jnp.float64), tree)

    weights = (world.state.params, world.state.constants, world.state.puzzle_table)
    names = ("params", "constants", "puzzle_table")
    state = world.state._replace(**dict(zip(names, wide(weights), strict=True)))
    carry = world.carry._replace(state=wide(world.carry.state))
    return world._replace(recipe=recipe, state=state, carry=carry)


def test_gradients_are_central_differences_through_the_last_calls_and_no_others():
    """In float64, along one direction of all weights, against calls written out here.

    The weights move in the last calls and in the heads alone.
    """
    calls = "zzyzzy"
    begun = judge.begun("hrm")
    with jax.enable_x64(True):
        world = in_float64(begun)
        rule = dataclasses.replace(world.recipe.rule, continue_head=False)
        carry = world.carry
        start = begin(
            rule, judge.model_of(world), carry, world.keys, training=True
        ).state
        weights = world.state.params, judge.vectors_of(world)
        leaves, tree = jax.tree.flatten(weights)
        rng = np.random.default_rng(0)
        along = tree.unflatten([rng.normal(size=leaf.shape) for leaf in leaves])

        @jax.jit
        def moved_loss(size, grad_calls):
            moved = jax.tree.map(lambda w, a: w + size * a, weights, along)
            y, z = start
            for i, latent in enumerate(calls):
                moves = i >= len(calls) - grad_calls
                used = jax.tree.map(partial(jnp.where, moves), moved, weights)
                model = judge.model_of(world, *used)
                if latent == "z":
                    z = model.low(z + (y + model.embed(carry.batch.inputs)))
                else:
                    y = model.high(y + z)
            logits, q = judge.model_of(world, *moved).predict(y)
            outputs = HRMOutputs(logits, q, None, None)
            return rule.loss(outputs, carry.batch).total.sum()

        def derivative(grad_calls):
            chosen = dataclasses.replace(rule, grad_calls=grad_calls)
            changed = world._replace(recipe=world.recipe._replace(rule=chosen))
            args = *weights, carry.state
            loss = jax.grad(lambda *a: judge.total_loss(changed, *a), (0, 1))
            products = jax.tree.map(jnp.vdot, jax.jit(loss)(*args), along)
            return sum(jax.tree.leaves(products))

        some = (0, 1, 2, 3, 5)  # 0 = all
        found = [float(derivative(n)) for n in some]
        size = 1e-6
        expected = [
            float(moved_loss(size, n) - moved_loss(-size, n)) / (2 * size)
            for n in (len(calls), *some[1:])
        ]
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        # Each further call counts.
        assert np.diff(sorted(expected)).min() > 1e-3 * abs(expected[0])


def test_demo_text_has_the_published_schedule_of_hrm_text():
    """2 + int(min(1, update / (0.2 updates)) * 3) calls with gradients."""
    config = api.get_config("hrm:demo_text").to_dict()
    steps, rule = config["train"]["steps"], HRM(**config["rule"]["hrm"])

    def calls(update):
        clock = Clock(None, 16, jnp.int32(update))
        return rule.growth.run(lambda number: jnp.int32(number), clock)

    for update in (0, 1, steps // 15, 1 + steps // 15, 533, 534, 799, 800, steps):
        share = min(1, Fraction(5 * update, steps))
        assert calls(update) == 2 + int(share * 3), update
    changed = {"grow_calls_to": 5, "grow_updates": 800}
    demo = api.get_config("hrm:demo").to_dict()
    assert config["rule"]["hrm"] == demo["rule"]["hrm"] | changed


@pytest.mark.slow
def test_calls_with_gradients_grow_by_update():
    world = judge.begun("hrm")
    grows = HRM(grad_calls=2, grow_calls_to=5, grow_updates=30, continue_head=False)

    def gradient(rule, update):
        model_of, carry = world.recipe.model, world.carry
        clock = Clock(carry.steps, 3, jnp.int32(update))

        def loss(params):
            constants, vectors = world.state.constants, judge.vectors_of(world)
            model = bind(rule, model_of, params, constants, vectors)
            _, outputs = rule.step(model, carry.batch, carry.state, world.keys, clock)
            return rule.loss(outputs, carry.batch).total.sum()

        return jax.jit(jax.grad(loss))(world.state.params)

    for update, calls in [(0, 2), (9, 2), (10, 3), (20, 4), (29, 4), (30, 5), (999, 5)]:
        fixed = HRM(grad_calls=calls, continue_head=False)
        expected = gradient(fixed, 0)
        found = gradient(grows, update)
        chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grad_calls": 7}, r"rule\.hrm\.grad_calls = 7, but .* = 6 network calls"),
        ({"grow_calls_to": 3}, r"grow_calls_to = 3; expected 0"),
        ({"grow_updates": 3}, r"grow_updates = 3; expected 0"),
        ({"grow_calls_to": 2, "grow_updates": 9}, "expected more than grad_calls = 2"),
    ],
)
def test_numbers_of_calls_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        HRM(**settings)
