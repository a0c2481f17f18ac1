# SPDX-License-Identifier: Apache-2.0
"""What the trace of a rule tells: its network calls, and what its states depend on."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

from trm_jax.model.model import BoundModel
from trm_jax.rules.base import Clock
from trm_jax.training.cost import inner_jaxprs, plain
from trm_jax.training.step import Recipe, init_train_state
from trm_jax.training.supervision import bind, row_keys
from trm_jax.types import Batch

_MARK = "network_call"


def network_calls(recipe: Recipe) -> int:
    """Network calls of one supervision step on one row, counted in its trace.

    A call within a loop counts once per iteration.
    """
    return _marks(_trace(recipe, num_steps=2))


def needs_num_steps(recipe: Recipe) -> bool:
    """Whether a step depends on how many steps there will be, as in a flow."""
    return str(_trace(recipe, num_steps=2)) != str(_trace(recipe, num_steps=3))


def starts_with_question(recipe: Recipe) -> bool:
    """Whether the first state of a row depends on its question, as in a plain loop."""
    return _start_reads(recipe, "question")


def draws_start(recipe: Recipe) -> bool:
    """Whether the first state of a row depends on its key, as in EqR and in a flow."""
    return _start_reads(recipe, "key")


def _start_reads(recipe: Recipe, what: str) -> bool:
    model, rows, keys = _bound(recipe)

    def start(inputs: Array, keys: Array, others: Any) -> Any:
        model, rows = others
        rows = rows._replace(inputs=inputs)
        return recipe.rule.start(model, rows, keys, training=False)

    jaxpr = jax.make_jaxpr(start)(rows.inputs, keys, (model, rows)).jaxpr
    reached = {jaxpr.invars[("question", "key").index(what)]}
    for eqn in jaxpr.eqns:
        if any(var in reached for var in eqn.invars if not hasattr(var, "val")):
            reached.update(eqn.outvars)
    return any(var in reached for var in jaxpr.outvars if not hasattr(var, "val"))


def _bound(recipe: Recipe) -> Any:
    """Shapes: the model, one row and its key."""

    def bound(key: Array) -> Any:
        state = init_train_state(recipe, key, 1)
        vectors = jnp.zeros((1, recipe.model.config.puzzle_width))
        weights = state.params, state.constants, vectors
        model = bind(recipe.rule, recipe.model, *weights)
        return model, state.carry.batch, row_keys(key, jnp.arange(1))

    return jax.eval_shape(bound, jax.random.key(0))


def _trace(recipe: Recipe, num_steps: int) -> Any:
    """The jaxpr of one step, in which every network call is marked."""
    recipe = plain(recipe)

    def step(model: BoundModel, rows: Batch, keys: Array) -> Any:
        first = recipe.rule.start(model, rows, keys, training=False)
        zero = jnp.zeros((), jnp.int32)
        clock = Clock(zero[None], num_steps, zero)
        return recipe.rule.infer(model, rows, first, keys, clock)

    with nn.intercept_methods(_mark):
        return jax.make_jaxpr(step)(*_bound(recipe)).jaxpr


def _mark(next_fun: Any, args: Any, kwargs: Any, context: Any) -> Any:
    out = next_fun(*args, **kwargs)
    return checkpoint_name(out, _MARK) if context.method_name == "refine" else out


def _marks(jaxpr: Any) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "name":
            total += eqn.params["name"] == _MARK
        elif eqn.primitive.name == "cond":  # only one branch runs
            total += max(_marks(branch.jaxpr) for branch in eqn.params["branches"])
        else:
            inner = sum(map(_marks, inner_jaxprs(eqn.params)))
            total += inner * eqn.params.get("length", 1)
    return total
