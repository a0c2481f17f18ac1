# SPDX-License-Identifier: Apache-2.0
"""HRM: "Hierarchical Reasoning Model" (arXiv 2506.21734), figure 4, top to bottom.

Two networks refine two latents. `low` updates z (the paper's z_L) `l_cycles` times,
then `high` updates y (z_H) once, and this `h_cycles` times. As in TRM, the loop over
supervision steps ("segments") is unrolled over training steps. The settings span the
ablations of TRM's paper: with one shared network, gradients through the last cycle and
no continue head, this rule computes what TRM computes.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from trm_jax.model.model import BoundModel
from trm_jax.rules.base import Clock, Keep
from trm_jax.rules.growth import Growth
from trm_jax.rules.latents import MAX_CYCLES, LatentRule, Latents
from trm_jax.rules.losses import RowLosses
from trm_jax.rules.recursion import frozen, iterate, rematerialised, repeat
from trm_jax.settings import knob
from trm_jax.types import Batch, StepOutput

Net = Callable[[Array], Array]
Inputs = tuple[BoundModel, Array]  # the model, and the embedded question


class HRMOutputs(NamedTuple):
    """Predictions, the target of the continue logit, and what was kept per h-cycle."""

    logits: Float[Array, "b m v"]
    q: Float[Array, "b c"]
    q_target: Float[Array, " b"] | None  # of the continue logit, in training
    kept: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class HRM(LatentRule):
    """Gradients flow through the last network calls; a second pass judges going on."""

    h_cycles: int = knob(
        2, "Updates of y per supervision step (paper N).", low=1, high=MAX_CYCLES
    )
    l_cycles: int = knob(
        2, "Updates of z per update of y (paper T).", low=1, high=MAX_CYCLES
    )
    share_network: bool = knob(False, "Use one network for both latents.")
    grad_calls: int = knob(
        2, "Last network calls with gradients; 0 = all.", low=0, high=2 * MAX_CYCLES
    )
    grow_calls_to: int = knob(
        0, "Calls with gradients after grow_updates.", low=0, high=2 * MAX_CYCLES
    )
    grow_updates: int = knob(
        0, "Updates over which calls gain gradients, one by one; 0 = none do.", low=0
    )
    continue_head: bool = knob(
        True, "Train a second halting logit, on a second pass over the same rows."
    )

    def __post_init__(self) -> None:
        counted = f"h_cycles * (l_cycles + 1) = {self.num_calls} network calls"
        self.growth.check("rule.hrm", "calls", self.num_calls, counted)

    @property
    def growth(self) -> Growth:
        """How many network calls have gradients."""
        first = self.grad_calls or self.num_calls
        return Growth(first, self.grow_calls_to, self.grow_updates)

    @property
    def networks(self) -> tuple[str, ...]:
        """The names of the networks."""
        return ("net",) if self.share_network else ("low", "high")

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of this rule alone."""
        return ("continue_loss",) if self.continue_head else ()

    @property
    def num_calls(self) -> int:
        """Network calls of a supervision step."""
        return self.h_cycles * (self.l_cycles + 1)

    def step(
        self,
        model: BoundModel,
        rows: Batch,
        state: Latents,
        keys: Array,
        clock: Clock,
        keep: Keep | None = None,
    ) -> tuple[Latents, HRMOutputs]:
        """One segment, and in training a second one that gives the continue target."""
        state, outputs = self.infer(model, rows, state, keys, clock, keep)
        if not self.continue_head:
            return state, outputs
        _, later = self.infer(frozen(model), rows, frozen(state), keys, clock)
        is_last = clock.step + 1 >= clock.num_steps
        best = jnp.where(is_last, later.q[:, 0], later.q.max(-1))
        return state, outputs._replace(q_target=jax.nn.sigmoid(best))

    def infer(
        self,
        model: BoundModel,
        rows: Batch,
        state: Latents,
        keys: Array,
        clock: Clock,
        keep: Keep | None = None,
    ) -> tuple[Latents, HRMOutputs]:
        """One segment: all cycles, and the prediction from y."""
        inputs = model, model.embed(rows.inputs)
        form = partial(self._cycles, keep=keep)
        state, kept = self.growth.run(form, clock, inputs, state)
        logits, q = model.predict(state.y)
        return state, HRMOutputs(logits, q, None, kept)

    def _cycles(
        self, grad_calls: int, inputs: Inputs, state: Latents, keep: Keep | None
    ) -> tuple[Latents, Any]:
        """All h-cycles; gradients flow through the last `grad_calls` calls."""
        whole, part = divmod(self.num_calls - grad_calls, self.l_cycles + 1)
        state, kept = iterate(
            self.latent_recursion,
            inputs,
            state,
            times=whole + 1,
            grad_times=1,
            grad_step=partial(self.latent_recursion, without_grad=part, unroll=True),
            keep=keep,
        )
        if rest := self.h_cycles - whole - 1:
            cycle = partial(self.latent_recursion, inputs, i=None, unroll=True)
            state, more = repeat(cycle, state, rest, keep)
            kept = jax.tree.map(lambda *k: jnp.concatenate(k), kept, more)
        return state, kept

    def latent_recursion(
        self,
        inputs: Inputs,
        state: Latents,
        i: Any,
        without_grad: int = 0,
        unroll: bool = False,
    ) -> Latents:
        """One h-cycle: `l_cycles` updates of z, then one of y.

        No gradient flows through the first `without_grad` updates.
        """
        y, z = state

        def updated(inputs: Inputs, z: Array, times: int, unroll: int) -> Array:
            model, x = inputs
            low = rematerialised(self._nets(model)[0], self.remat)
            return repeat(lambda z: low(z + (y + x)), z, times, unroll=unroll)[0]

        z = frozen(updated(frozen(inputs), z, without_grad, 1)) if without_grad else z
        if times := self.l_cycles - without_grad:
            z = updated(inputs, z, times, self.updates_per_turn(times) if unroll else 1)
        high = rematerialised(self._nets(inputs[0])[1], self.remat)
        return Latents(high(y + z), z)

    def _nets(self, model: BoundModel) -> tuple[Net, Net]:
        """The networks of z and of y."""
        if self.share_network:
            return model.net, model.net
        return model.low, model.high

    def loss(self, outputs: HRMOutputs, rows: Batch) -> RowLosses:
        """Cells, and "all correct" as the halting target; in training also going on."""
        losses = super().loss(outputs, rows)
        if outputs.q_target is None:
            return losses
        going_on = optax.sigmoid_binary_cross_entropy(
            outputs.q[:, 1], outputs.q_target.astype(outputs.q.dtype)
        )
        total = losses.total + self.halt_weight * going_on
        return losses._replace(total=total, extra={"continue_loss": going_on})

    def answer(self, outputs: HRMOutputs) -> StepOutput:
        """Halt if halting is judged better than going on, or without it if q > 0."""
        halt, go_on = outputs.q[:, 0], outputs.q[:, 1]
        wants_halt = halt > go_on if self.continue_head else halt > 0
        return StepOutput(outputs.logits, halt, wants_halt)
