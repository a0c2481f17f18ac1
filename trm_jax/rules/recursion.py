# SPDX-License-Identifier: Apache-2.0
"""How states recur, with and without gradients, and where gradients are stopped.

These pure functions take a step as an argument; they need no Flax and are tested with
toy networks. This is the only file of the package that calls `stop_gradient`.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from trm_jax.types import MATMUL, SSD

Inputs = TypeVar("Inputs")
State = TypeVar("State")
Keep = Callable[[State], Any]  # what is kept of the state after each iteration

_policies = jax.checkpoint_policies
REMAT_POLICIES = {
    "none": None,
    # It saves products inside attention and, by name, layers.matmul and the scan.
    "dots": _policies.save_from_both_policies(
        _policies.dots_saveable, _policies.save_only_these_names(MATMUL, SSD)
    ),
    "full": _policies.nothing_saveable,
}


def frozen(tree: Inputs) -> Inputs:
    """The same values, through which no gradient flows."""
    return lax.stop_gradient(tree)


def rematerialised(fn: Callable[..., Any], remat: str) -> Callable[..., Any]:
    """`fn`, whose backward pass recomputes what the policy `remat` does not save.

    "none" saves all residuals, "dots" the results of products, "full" nothing.
    """
    policy = REMAT_POLICIES[remat]
    return fn if policy is None else jax.checkpoint(fn, policy=policy)


def repeat(
    fn: Callable[[State], State],
    state: State,
    times: int,
    keep: Keep | None = None,
    *,
    unroll: int = 1,
) -> tuple[State, Any]:
    """Apply `fn` `times` times: the last state, and `keep(state)` of each, stacked."""

    def body(state: State, _: None) -> tuple[State, Any]:
        state = fn(state)
        return state, keep(state) if keep else None

    return lax.scan(body, state, length=times, unroll=min(unroll, times))


def iterate(
    step: Callable[[Inputs, State, Any], State],
    grad_inputs: Inputs,
    state: State,
    *,
    times: int,
    grad_times: int,
    grad_step: Callable[[Inputs, State, Any], State] | None = None,
    keep: Keep | None = None,
) -> tuple[State, Any]:
    """`state = step(grad_inputs, state, i)` for i in 0 .. times - 1.

    Gradients flow only through the last `grad_times` iterations, and none reaches the
    initial state. The inputs of the earlier iterations are frozen too: this changes no
    gradient, since the state is stopped at the boundary, but it keeps the residuals of
    these iterations out of the trace. `grad_step` computes the same as `step`
    in a form that suits the backward pass better, such as an unrolled loop, and takes
    its place in the last `grad_times` iterations. Returns the last state, and
    `keep(state)` of every iteration, stacked.
    """
    kept: list[Any] = []

    def scan(step: Any, inputs: Inputs, state: State, first: int, last: int) -> State:
        def body(state: State, i: Any) -> tuple[State, Any]:
            state = step(inputs, state, i)
            return state, keep(state) if keep else None

        # A single step runs outside of a loop, which would stack its residuals.
        if last - first == 1:
            state, one = body(state, jnp.int32(first))
            kept.append(jax.tree.map(lambda v: v[None], one))
        else:
            state, each = lax.scan(body, state, jnp.arange(first, last))
            kept.append(each)
        return state

    start = times - grad_times
    if start:
        state = scan(step, frozen(grad_inputs), frozen(state), 0, start)
    state = frozen(state)
    if grad_times:
        state = scan(grad_step or step, grad_inputs, state, start, times)
    return state, jax.tree.map(lambda *v: jnp.concatenate(v), *kept)


def ended(kept: Any, keep: Keep | None, last: State) -> Any:
    """The records of all iterations, where the last one is of the state `last`.

    A rule calls it if it changes the state after its iterations.
    """
    if keep is None:
        return kept
    return jax.tree.map(lambda each, end: each.at[-1].set(end), kept, keep(last))
