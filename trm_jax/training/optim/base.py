# SPDX-License-Identifier: Apache-2.0
"""The interface of an optimiser, and the learning-rate schedule."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from trm_jax.types import Params

Scalar = Float[Array, ""] | float
Mask = Callable[[Params], Any]  # parameters -> a tree of booleans
SHAPES = ("cosine", "linear")


class Groups(NamedTuple):
    """Which parameters an optimiser treats alike, as functions of their tree."""

    decayed: Mask
    columns: Callable[[Params], Any]  # of each parameter: see Sublayer.columns
    kept: tuple[str, ...] = ()  # names of parameters that stay as they were drawn


@runtime_checkable
class Optimizer(Protocol):
    """A frozen dataclass of knobs: config.optim.<name>."""

    def build(
        self, lr: float, factor: optax.Schedule, weight_decay: float, groups: Groups
    ) -> optax.GradientTransformation:
        """The gradient transformation; `groups.decayed` selects what decays.

        `lr * factor(k)` is the learning rate of update k = 1, 2, ...
        """


def by_update(lr: float, factor: optax.Schedule) -> optax.Schedule:
    """The rates for optax, which counts updates from 0; the papers count from 1."""
    return lambda count: lr * factor(count.astype(int) + 1)  # optax counts in int32


def make_schedule(
    lr: float,
    *,
    warmup_steps: int,
    total_steps: int,
    min_ratio: float,
    decay_start: float = 0.0,
    decay_shape: str = "cosine",
    first: int = 0,
) -> optax.Schedule:
    """Learning rate of update k = 1, 2, ...: linear warm-up from 0, then a decay.

    The rate falls to `min_ratio * lr` at `total_steps`, along a cosine or a line. The
    decay starts at the end of the warm-up, or after the fraction `decay_start` of all
    steps if that is later. The rate of the `first` updates is 0, and the warm-up
    follows them.
    """
    start = max(first + warmup_steps, round(decay_start * total_steps))

    def schedule(step: Int[Array, ""] | int) -> Scalar:
        progress = jnp.clip((step - start) / max(1, total_steps - start), 0, 1)
        cosine = 0.5 * (1 + jnp.cos(jnp.pi * progress))
        left = cosine if decay_shape == "cosine" else 1 - progress
        decayed = min_ratio + (1 - min_ratio) * left
        warm = (step - first) / max(1, warmup_steps)
        rate = jnp.where(step < first + warmup_steps, warm, decayed)
        return lr * (jnp.where(step > first, rate, 0) if first else rate)

    return schedule
