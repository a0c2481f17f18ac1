# SPDX-License-Identifier: Apache-2.0
"""What the settings of rules/levers.py and the starts add to the rules."""

import dataclasses
import math
from functools import cache, partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.tiny import tiny_recipe
from tests.rules import judge
from tests.rules.judge import ROWS, on_device
from trm_jax.errors import ConfigError
from trm_jax.rules.base import Clock
from trm_jax.rules.hrm import HRM
from trm_jax.rules.latents import STARTS
from trm_jax.rules.losses import row_losses
from trm_jax.rules.recursion import frozen
from trm_jax.rules.trm import TRM
from trm_jax.rules.urm import URM

CYCLES = {"h_cycles": 2, "l_cycles": 1}
LOSS = {"loss": "stablemax", "label_smoothing": 0.0}


@cache
def gradient(rule, update=0):
    """Gradients of the loss of a step of the tiny model, and its row losses."""
    world = judge.begun("trm")
    carry = world.carry
    clock = Clock(carry.steps, 3, jnp.int32(update))

    def loss(params):
        model = judge.model_of(world, params)
        _, outputs = rule.step(model, carry.batch, carry.state, world.keys, clock)
        rows = rule.loss(outputs, carry.batch)
        return rows.total.sum(), rows

    return jax.jit(jax.grad(loss, has_aux=True))(world.state.params)


@pytest.mark.slow
@pytest.mark.parametrize("cycles", [1, 2, 3])
def test_the_last_cycles_have_gradients_and_no_others(cycles):
    """HRM with one network counts the same gradients in calls."""
    size = {"h_cycles": 3, "l_cycles": 1}
    found, _ = gradient(TRM(grad_cycles=cycles % 3, **size))  # 0 = all
    one_network = {"share_network": True, "continue_head": False}
    like = HRM(grad_calls=2 * cycles, **one_network, **size)
    chex.assert_trees_all_close(found, gradient(like)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("update", "cycles"), [(0, 1), (4, 1), (5, 2), (99, 3)])
def test_cycles_with_gradients_grow_by_update(update, cycles):
    size = {"h_cycles": 3, "l_cycles": 1}
    grows = TRM(grow_cycles_to=3, grow_updates=10, **size)
    found, _ = gradient(grows, update)
    expected, _ = gradient(TRM(grad_cycles=cycles % 3, **size))
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"grad_cycles": 4}, r"rule\.trm\.grad_cycles = 4, but .* h_cycles = 3"),
        ({"grow_cycles_to": 3}, r"grow_cycles_to = 3; expected 0"),
        ({"grow_updates": 3}, r"grow_updates = 3; expected 0"),
        ({"grad_cycles": 0, "grow_cycles_to": 2, "grow_updates": 9}, "more than grad"),
    ],
)
def test_numbers_of_cycles_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        TRM(**settings)


def by_hand(rule, model, carry, keys):
    """The states after every h-cycle, each a separate program."""
    inputs, states = rule.inputs(model, carry.batch, keys), [carry.state]
    for i in range(rule.h_cycles):
        states.append(rule.latent_recursion(inputs, frozen(states[-1]), i))
    return inputs, states


def test_the_loss_of_every_cycle_is_their_mean():
    world, rule = judge.begun("trm"), TRM(every_cycle=True, grad_cycles=0, **CYCLES)
    _, rows = gradient(rule)
    carry = world.carry
    _, states = by_hand(rule, judge.model_of(world), carry, world.keys)
    each = []
    for state in states[1:]:
        logits, q = judge.model_of(world).predict(state.y)
        each.append(row_losses(logits, q[:, 0], carry.batch, halt_weight=0.5, **LOSS))
    early = sum(losses.cell_loss for losses in each) / rule.h_cycles
    close = partial(np.testing.assert_allclose, rtol=1e-4)
    close(rows.extra["early_loss"], early)
    close(rows.cell_loss, each[-1].cell_loss)
    close(rows.total, early + 0.5 * each[-1].halt_loss)
    assert rule.metrics == ("early_loss",)


def test_the_penalty_is_the_squared_slope_of_the_last_cycle():
    """Its mean over directions e is the mean of |J e|^2 / |e|^2."""
    world, rule = judge.begun("trm"), TRM(lipschitz_weight=2.0, **CYCLES)
    _, rows = gradient(rule)
    plain = gradient(TRM(**CYCLES))[1]
    np.testing.assert_allclose(
        rows.total, plain.total + 2 * rows.extra["slope"], rtol=1e-5
    )
    carry, model = world.carry, judge.model_of(world)
    inputs, states = by_hand(rule, model, carry, world.keys)

    @jax.jit
    def mean_square(row):
        """The sum of the squares of the Jacobian of a row, over its width."""
        alone = judge.model_of(world, vectors=model.vectors[row][None])

        def cycle(state):
            x = inputs[1][row][None]
            state = jax.tree.map(lambda latent: latent[None], state)
            return rule.latent_recursion((alone, x), state, 1)

        at = jax.tree.map(lambda latent: latent[row], states[-2])
        parts = jax.tree.leaves(jax.jacobian(cycle)(at))
        return sum((part**2).sum() for part in parts) / (2 * at.y.size)

    expected = float(np.mean([mean_square(row) for row in range(ROWS)]))
    assert float(rows.extra["slope"].mean()) == pytest.approx(expected, rel=0.1)
    assert rule.metrics == ("slope",)


def test_the_penalty_trains_the_network_and_draws_by_row():
    weights = (0.0, 2.0)
    plain, penalised = (gradient(TRM(lipschitz_weight=w, **CYCLES)) for w in weights)
    kernel = [g["net"]["0_swiglu"]["down"]["kernel"] for g, _ in (plain, penalised)]
    assert float(jnp.abs(kernel[0] - kernel[1]).max()) > 1e-3
    head = [g["head"]["kernel"] for g, _ in (plain, penalised)]
    np.testing.assert_allclose(head[0], head[1], rtol=1e-4, atol=1e-6)
    assert len(np.unique(penalised[1].extra["slope"])) == ROWS


def test_a_penalty_in_bfloat16_is_refused():
    changes = {"model.dtype": "bfloat16", "rule.trm.lipschitz_weight": 1e-7}
    with pytest.raises(ConfigError, match="lipschitz_weight = 1e-07, but model.dtype"):
        tiny_recipe({"model.layers": ("swiglu",), **changes})


@pytest.mark.parametrize("starts", STARTS)
@pytest.mark.parametrize("kind", [TRM, URM])
def test_starts_have_std_1_and_differ_where_the_setting_says(starts, kind):
    rule, world = kind(starts=starts), judge.begun("trm")
    config = world.recipe.model.config
    constants = rule.constants(jax.random.key(5), config, {})
    model = dataclasses.replace(judge.model_of(world), constants=constants)
    rows = on_device(judge.make_rows(0))
    state = rule.start(model, rows, world.keys, training=False)
    expected = {"published": (True, True), "fixed": (True, False)}
    for name, latent in state._asdict().items():
        assert latent.shape == (ROWS, config.seq_len, config.d_model)
        same_rows = bool((latent == latent[:1]).all())
        same_tokens = bool((latent == latent[:, :1]).all())
        assert (same_rows, same_tokens) == expected.get(starts, (False, False))
        assert float(latent.std()) == pytest.approx(1, abs=0.25)
        if starts == "anchored":
            mean = math.sqrt(2) * latent.mean((0, 1))
            np.testing.assert_allclose(mean, constants[name], atol=0.4)
    assert set(constants) == (set() if starts == "random" else {*state._fields})
    assert len({float(latent[0, 0, 0]) for latent in state}) == len(state)
