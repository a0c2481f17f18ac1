# SPDX-License-Identifier: Apache-2.0
"""Adam-atan2 (arXiv 2407.05872), the optimiser of HRM and TRM."""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from trm_jax.settings import knob
from trm_jax.training.optim.base import Groups, by_update
from trm_jax.types import Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamAtan2:
    """config.optim.adam_atan2."""

    b1: float = knob(0.9, "Decay of the first moment.", low=0.0, below=1.0)
    b2: float = knob(0.95, "Decay of the second moment.", low=0.0, below=1.0)

    def build(
        self, lr: float, factor: optax.Schedule, weight_decay: float, groups: Groups
    ) -> optax.GradientTransformation:
        """Adam-atan2 with decoupled decay: p (1 - lr wd) - lr u."""
        return optax.chain(
            scale_by_adam_atan2(self.b1, self.b2),
            optax.add_decayed_weights(weight_decay, groups.decayed),
            optax.scale_by_learning_rate(by_update(lr, factor)),
        )


class AdamAtan2State(NamedTuple):
    """Number of updates, first and second moments."""

    num_updates: Int[Array, ""]
    m: Params
    v: Params


def scale_by_adam_atan2(b1: float, b2: float) -> optax.GradientTransformation:
    """Scale by Adam-atan2, without an epsilon: zero gradients give zero updates.

    The bias correction of the first moment is outside the atan2, as published with TRM.
    The square of a gradient below 1e-19 underflows in float32. Where the second moment
    has underflowed, both moments are those of the present gradient alone: the first
    update then has its published size, and no update is larger.
    """

    def init(params: Params) -> AdamAtan2State:
        def zeros() -> Params:
            return jax.tree.map(jnp.zeros_like, params)

        return AdamAtan2State(jnp.zeros((), int), zeros(), zeros())

    def update(
        grads: Params, state: AdamAtan2State, params: Params = None
    ) -> tuple[Params, AdamAtan2State]:
        del params
        num_updates = state.num_updates + 1
        m = optax.tree.update_moment(grads, state.m, b1, 1)
        v = optax.tree.update_moment(grads, state.v, b2, 2)
        first = 1 - b1**num_updates
        second = jnp.sqrt(1 - b2**num_updates)

        def scaled(g: Array, m: Array, v: Array) -> Array:
            lost = v < jnp.finfo(v.dtype).tiny
            root = jnp.where(lost, math.sqrt(1 - b2) * jnp.abs(g), jnp.sqrt(v))
            m = jnp.where(lost, (1 - b1) * g, m)
            return jnp.atan2(m, root / second) / first

        updates = jax.tree.map(scaled, grads, m, v)
        return updates, AdamAtan2State(num_updates, m, v)

    return optax.GradientTransformation(init, update)
