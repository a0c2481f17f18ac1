# SPDX-License-Identifier: Apache-2.0
"""When a row of the carry is done: TRM's ACT without a continue head (section 4.6)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from trm_jax.settings import knob


@dataclasses.dataclass(frozen=True, kw_only=True)
class Halting:
    """config.halting: the number of supervision steps per row, for every rule."""

    max_supervision_steps: int = knob(
        16, "Most steps on one puzzle (N_sup).", low=1, high=100_000
    )
    explore_rate: float = knob(
        0.1,
        "Probability that a row may halt only after 2 to max steps, drawn per step.",
        low=0.0,
        high=1.0,
    )
    halt_position: str = knob(
        "first",
        "Position of y at which halting is decided, or the mean over all positions.",
        choices=("first", "last", "mean"),
    )
    step_decay: float = knob(
        1.0,
        "The loss of a supervision step counts this many times that of the step "
        "before it; the metrics are not weighted.",
        low=0.0,
    )
    normalise_steps: bool = knob(
        False, "Divide these weights by their sum over max_supervision_steps."
    )

    def weighted(
        self, losses: Float[Array, " b"], steps: Int[Array, " b"]
    ) -> Float[Array, " b"]:
        """The losses of rows whose supervision steps are the 1st, 2nd, ...: `steps`.

        The weights are those of CGAR (arXiv 2511.08653): step_decay^(steps - 1).
        """
        if self.step_decay == 1 and not self.normalise_steps:
            return losses
        each = self.step_decay ** np.arange(self.max_supervision_steps)
        weights = each / each.sum() if self.normalise_steps else each
        return losses * jnp.asarray(weights, losses.dtype)[steps - 1]


def exploration_minimum(
    keys: Array, *, max_steps: int, explore_rate: float
) -> Int[Array, " b"]:
    """Minimum number of steps per row: 0, or with probability `explore_rate` 2 to max.

    The minimum is drawn again in every step. `keys` holds one key per row.
    """

    def of_row(key: Array) -> Int[Array, ""]:
        coin, count = jax.random.split(key)
        explores = jax.random.bernoulli(coin, explore_rate)
        least = jax.random.randint(count, (), min(2, max_steps), max_steps + 1)
        return jnp.where(explores, least, 0)

    return jax.vmap(of_row)(keys)


def halt(
    wants_halt: Bool[Array, " b"],
    steps: Int[Array, " b"],
    min_steps: Int[Array, " b"],
    *,
    max_steps: int,
) -> Bool[Array, " b"]:
    """A row halts at `max_steps`, or when it wants to and `min_steps` are done."""
    return (steps >= max_steps) | (wants_halt & (steps >= min_steps))
