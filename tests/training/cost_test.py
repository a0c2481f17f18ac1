# SPDX-License-Identifier: Apache-2.0
import jax
import jax.numpy as jnp
import pytest

from tests.helpers.tiny import ROWS, SIZES, tiny_built, tiny_config, tiny_recipe
from tests.ops.cases import EVERYWHERE
from trm_jax.model.layers import matmul
from trm_jax.training import step
from trm_jax.training.build import build
from trm_jax.training.cost import count_flops, flops_per_step, step_flops

A, B = jnp.ones((3, 5)), jnp.ones((5, 7))
PRODUCT = 2 * 3 * 5 * 7


@pytest.mark.parametrize(
    ("fn", "products"),
    [
        (lambda a, b: a @ b, 1),
        (jax.jit(lambda a, b: a @ b), 1),
        (matmul, 1),
        (lambda a, b: matmul(a.astype(jnp.bfloat16), b.astype(jnp.bfloat16)), 1),
        (lambda a, b: jax.lax.map(lambda _: a @ b, jnp.arange(4)), 4),
        (
            lambda a, b: jax.lax.cond(
                a[0, 0] > 0, jnp.matmul, lambda a, b: 0 * a @ b, a, b
            ),
            1,
        ),
        (lambda a, b: a.sum() + b.sum(), 0),
    ],
)
def test_products_are_counted_wherever_they_stand(fn, products):
    assert count_flops(jax.make_jaxpr(fn)(A, B).jaxpr) == products * PRODUCT


def test_a_step_costs_its_calls_and_thrice_the_differentiated_ones():
    recipe = tiny_recipe({"model.layers": ("swiglu",), "rule.trm.h_cycles": 3})
    tokens = 4 * recipe.model.config.seq_len
    call = 2 * 3 * 32 * 48 * tokens
    head = 2 * 32 * 7 * 4 * 16 + 2 * 32 * 2 * 4  # cells, and halting at one place
    assert step_flops(recipe, 4) == call * 3 * (2 + 3) + 3 * head


def test_rematerialisation_costs_nothing():
    costs = {
        step_flops(tiny_recipe({"rule.trm.remat": remat}), 4)
        for remat in ("none", "dots", "full")
    }
    assert len(costs) == 1


@pytest.mark.slow
def test_the_cost_of_a_scan_is_the_same_for_all_its_forms():
    def cost(form):
        layers = {"model.layers": ("mamba2", "token_mlp")}
        recipe = tiny_recipe(layers | {"model.mamba2.implementation": form})
        return step_flops(recipe, 4)

    costs = {cost(form) for form in ("auto", *EVERYWHERE)}
    assert len(costs) == 1
    without = step_flops(tiny_recipe({"model.layers": ("token_mlp",)}), 4)
    assert costs.pop() > without


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mesh.data": 2, "train.micro_batches": 2},
        {"rule.name": "loop"},
        {"rule.trm.remat": "full"},
        {"model.layers": ("mamba2", "swiglu"), "model.mamba2.implementation": "auto"},
    ],
    ids=str,
)
def test_the_cost_of_a_run_is_that_of_its_recipe(changes):
    built = tiny_built(changes)
    assert flops_per_step(built) == step_flops(built.recipe, ROWS)


def test_a_run_is_traced_once_to_be_counted_and_run(monkeypatch):
    traced, traces = step.loss_and_grads, []

    def counted(*args):
        traces.append(args)
        return traced(*args)

    monkeypatch.setattr(step, "loss_and_grads", counted)
    built = build(tiny_config({"train.steps": 77}), SIZES)  # not shared
    assert flops_per_step(built) > 0
    state = built.init()
    batch = jax.tree.map(jnp.zeros_like, state.carry.batch)
    batch = jax.device_put(batch, jax.tree.map(lambda x: x.sharding, state.carry.batch))
    built.train_step(state, batch)
    assert len(traces) == 1
