# SPDX-License-Identifier: Apache-2.0
"""A curriculum over cycles and over the weights of supervision steps (CGAR)."""

import dataclasses
from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.rules import judge
from trm_jax.errors import ConfigError
from trm_jax.rules.curriculum import phases
from trm_jax.rules.halting import Halting
from trm_jax.rules.trm import TRM
from trm_jax.rules.wta import WTA
from trm_jax.training.cost import phase_flops, step_flops, total_flops
from trm_jax.training.step import loss_and_grads
from trm_jax.training.supervision import supervision_step

CGAR = {
    "phase_ends": (0.3, 0.6),
    "phase_h_cycles": (1, 2),
    "phase_l_cycles": (2, 4),
}
UPDATES = 10


@dataclasses.dataclass(frozen=True)
class Wrapper:
    """A rule around another one."""

    inner: TRM
    size: int = 3


def cycles(found):
    return [(first, rule.h_cycles, rule.l_cycles) for first, rule in found]


def test_the_phases_are_the_published_ones():
    rule = TRM(**CGAR)
    assert cycles(phases(rule, UPDATES)) == [(0, 1, 2), (3, 2, 4), (6, 3, 6)]
    assert cycles(phases(rule, 65_104)) == [(0, 1, 2), (19_531, 2, 4), (39_062, 3, 6)]
    assert phases(TRM(), UPDATES) == [(0, TRM())]
    assert phases(rule, UPDATES)[-1][1] == TRM()


def test_a_rule_around_another_has_its_phases():
    found = phases(Wrapper(TRM(**CGAR), size=5), UPDATES)
    assert cycles((at, w.inner) for at, w in found) == cycles(
        phases(TRM(**CGAR), UPDATES)
    )
    assert {w.size for _, w in found} == {5}
    assert phases(Wrapper(TRM()), UPDATES) == [(0, Wrapper(TRM()))]
    chains = WTA().around(TRM(**CGAR))
    assert [one.inner.h_cycles for _, one in phases(chains, UPDATES)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phase_ends": (0.5,)}, "phase_h_cycles = .*expected as many"),
        (
            CGAR | {"phase_h_cycles": (1,)},
            "phase_h_cycles = .*expected as many",
        ),
        (CGAR | {"phase_ends": (0.6, 0.3)}, "rising shares"),
        (CGAR | {"phase_ends": (0.3, 0.3)}, "rising shares"),
    ],
)
def test_phases_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        TRM(**changes)


@cache
def recipe():
    """A tiny TRM whose cycles grow from (1, 1) to (2, 2) after half of 6 updates."""
    settings = {"h_cycles": 2, "l_cycles": 2, "phase_ends": (0.5,)}
    settings |= {"phase_h_cycles": (1,), "phase_l_cycles": (1,)}
    return judge.recipe_of(judge.tiny("trm", rule={"trm": settings}))


def test_each_update_does_the_cycles_of_its_phase():
    world, ours = judge.begun("trm"), recipe()
    assert ours.num_updates == 6

    def grads_of(recipe, update):
        weights = world.state.params, world.state.constants, update
        rows = judge.vectors_of(world), world.carry, world.keys
        never = jnp.zeros(judge.ROWS, jnp.int32)
        return loss_and_grads(recipe, judge.ROWS, weights, *rows, never)

    grown = jax.jit(partial(grads_of, ours))
    (_, first), (_, second) = phases(ours.rule, ours.num_updates)
    for rule, updates in [(first, (0, 2)), (second, (3, 5))]:
        expected = jax.jit(partial(grads_of, ours._replace(rule=rule)))(jnp.int32(0))
        for update in updates:
            found = grown(jnp.int32(update))
            chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=1e-6)
    assert first != second


def test_an_evaluation_does_all_cycles():
    world = judge.begun("trm")
    model = judge.bind(
        recipe().rule,
        recipe().model,
        world.state.params,
        world.state.constants,
        judge.vectors_of(world),
    )

    @partial(jax.jit, static_argnums=0)
    def outputs(rule):
        never, first = jnp.full(judge.ROWS, 3, jnp.int32), jnp.int32(0)
        at = {"max_steps": 3, "training": False}
        rows = world.carry, world.keys, never, first
        return supervision_step(rule, model, *rows, **at)[1]

    _, (_, last) = phases(recipe().rule, 6)
    chex.assert_trees_all_equal(outputs(recipe().rule), outputs(last))


def test_flops_are_those_of_the_phases():
    early, late = (
        judge.recipe_of(judge.tiny("trm", rule={"trm": {"h_cycles": n, "l_cycles": n}}))
        for n in (1, 2)
    )
    costs = [step_flops(each, judge.ROWS) for each in (early, late)]
    assert phase_flops(recipe(), judge.ROWS) == [(0, costs[0]), (3, costs[1])]
    done = [total_flops([(0, 10), (3, 100)], n) for n in range(6)]
    assert done == [0, 10, 20, 30, 130, 230]
    assert step_flops(recipe(), judge.ROWS) == round(sum(costs) / 2)


@pytest.mark.parametrize("normalise", [False, True])
def test_supervision_steps_are_weighted_as_published(normalise):
    halting = Halting(step_decay=0.7, normalise_steps=normalise)
    found = halting.weighted(jnp.full(4, 2.0), jnp.array([1, 2, 5, 16]))
    expected = 2 * 0.7 ** np.array([0, 1, 4, 15])
    if normalise:
        expected /= sum(0.7**t for t in range(16))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    losses = jnp.ones(4)
    assert Halting().weighted(losses, jnp.arange(4)) is losses
