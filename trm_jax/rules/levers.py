# SPDX-License-Identifier: Apache-2.0
"""What the rules of TRM's kind may add to a training step, each by one setting.

All are off by default: gradients through more h-cycles, a loss after every h-cycle,
and a penalty on the slope of the last h-cycle.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from trm_jax.errors import ConfigError
from trm_jax.model.config import ModelConfig
from trm_jax.rules.base import Clock, Keep
from trm_jax.rules.draws import folded, normal
from trm_jax.rules.growth import Growth
from trm_jax.rules.latents import MAX_CYCLES, LatentRule
from trm_jax.rules.losses import RowLosses
from trm_jax.rules.recursion import frozen
from trm_jax.settings import knob
from trm_jax.types import Batch, State

# Every draw within a step folds the key of its row with one of these.
CALL_NOISE, SLOPE_NOISE = 0, 1
SLOPE_STD = 1e-3  # of the perturbation, per element


class CycleOutputs(NamedTuple):
    """Predictions of a supervision step, and what `keep` returned for its h-cycles."""

    logits: Float[Array, "b m v"]
    q: Float[Array, "b c"]
    kept: Any
    each: Float[Array, "k b m v"] | None = None  # after every h-cycle, in training
    slope: Float[Array, " b"] | None = None  # squared, of the last h-cycle


@dataclasses.dataclass(frozen=True, kw_only=True)
class Levers(LatentRule):
    """A rule adds `recur` and `latent_recursion`; their inputs begin with the model."""

    h_cycles: int
    grad_cycles: int = knob(
        1, "Last h-cycles with gradients; 0 = all.", low=0, high=MAX_CYCLES
    )
    grow_cycles_to: int = knob(
        0, "H-cycles with gradients after grow_updates.", low=0, high=MAX_CYCLES
    )
    grow_updates: int = knob(
        0, "Updates over which cycles gain gradients, one by one; 0 = none do.", low=0
    )
    every_cycle: bool = knob(
        False, "Minimise the mean cell loss after every h-cycle, not the last alone."
    )
    lipschitz_weight: float = knob(
        0.0,
        "Weight of (|f(z + e) - f(z)| / |e|)^2, where f is the last h-cycle.",
        low=0.0,
    )

    def __post_init__(self) -> None:
        most = self.h_cycles
        counted = f"h_cycles = {most}"
        self.growth.check(f"rule.{self.section}", "cycles", most, counted)

    @property
    def growth(self) -> Growth:
        """How many h-cycles have gradients."""
        first = self.grad_cycles or self.h_cycles
        return Growth(first, self.grow_cycles_to, self.grow_updates)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of the settings that are on."""
        on = {"early_loss": self.every_cycle, "slope": self.lipschitz_weight > 0}
        return tuple(name for name, is_on in on.items() if is_on)

    def module(self, config: ModelConfig) -> Any:
        """No parameters of its own."""
        if self.lipschitz_weight and config.compute_dtype == jnp.bfloat16:
            raise ConfigError(
                f"rule.{self.section}.lipschitz_weight = {self.lipschitz_weight}, but "
                f"model.dtype = 'bfloat16' rounds a perturbation of {SLOPE_STD} away; "
                "expected 'float32' or 'float64'"
            )

    def trained(
        self,
        inputs: Any,
        state: State,
        keys: Array,
        clock: Clock,
        keep: Keep | None = None,
    ) -> tuple[State, CycleOutputs]:
        """`recur`, and what the loss reads of its h-cycles."""
        own: Any = self
        if not self.metrics:
            return own.recur(inputs, state, clock, keep)

        def both(state: State) -> tuple[State, Any]:
            return state, keep(state) if keep else None

        last, outputs = own.recur(inputs, state, clock, both)
        cycles, kept = outputs.kept
        outputs = outputs._replace(kept=kept)
        if self.every_cycle:
            model, *_ = inputs
            each = jax.vmap(lambda state: model.predict(state.y)[0])(cycles)
            outputs = outputs._replace(each=each)
        if self.lipschitz_weight:
            before = state
            if self.h_cycles > 1:
                before = jax.tree.map(lambda leaf: leaf[-2], cycles)
            slope = self.slope(inputs, before, last, keys)
            outputs = outputs._replace(slope=slope)
        return last, outputs

    def slope(
        self, inputs: Any, before: State, after: State, keys: Array
    ) -> Float[Array, " b"]:
        """|f(z + e) - f(z)|^2 / |e|^2 per row; z is `before`, and f(z) is `after`.

        All latents together are z. Gradients flow through both values of f.
        """
        own: Any = self
        leaves, shape = jax.tree.flatten(frozen(before))
        steps = [
            SLOPE_STD * normal(folded(keys, SLOPE_NOISE, k), leaf.shape[1:])
            for k, leaf in enumerate(leaves)
        ]
        moved = [z + e.astype(z.dtype) for z, e in zip(leaves, steps, strict=True)]
        elsewhere = own.latent_recursion(
            inputs, jax.tree.unflatten(shape, moved), self.h_cycles - 1
        )
        change = jax.tree.map(jnp.subtract, elsewhere, after)
        return _square(change) / _square(steps)

    def loss(self, outputs: CycleOutputs, rows: Batch) -> RowLosses:
        """Cells and halting; in training also what the settings add."""
        losses = super().loss(outputs, rows)
        total, extra = losses.total, {}
        if outputs.each is not None:
            extra["early_loss"] = self.cell_losses(outputs.each, outputs, rows).mean(0)
            total = total - losses.cell_loss + extra["early_loss"]
        if outputs.slope is not None:
            extra["slope"] = outputs.slope
            total = total + self.lipschitz_weight * outputs.slope
        return losses._replace(total=total, extra=extra)


def _square(tree: Any) -> Float[Array, " b"]:
    """The sum of the squares of all elements of a row."""
    leaves = jax.tree.leaves(tree)
    squares = [jnp.square(leaf).sum(range(1, leaf.ndim)) for leaf in leaves]
    return jnp.stack(squares).sum(0)
