# SPDX-License-Identifier: Apache-2.0
"""TRM: Figure 3 of "Less is More" (arXiv 2510.04871), from top to bottom.

The paper's loop over supervision steps is unrolled over training steps, and the carry
is its loop variable: one call of `TRM.step` is one pass of that loop, and the y and z
that it returns wait in the carry for the next training step. docs/figure3.md sets each
line of the figure beside its line here.
"""

import dataclasses
from functools import partial
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Array, Float

from trm_jax.model.model import BoundModel
from trm_jax.rules.base import Clock, Keep
from trm_jax.rules.latents import MAX_CYCLES, FixedStarts, Latents
from trm_jax.rules.recursion import iterate, rematerialised, repeat
from trm_jax.settings import knob
from trm_jax.types import Batch, State, StepOutput


class TRMOutputs(NamedTuple):
    """Predictions of a supervision step, and what `keep` returned for its h-cycles."""

    logits: Float[Array, "b m v"]
    q: Float[Array, "b c"]
    kept: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class TRM(FixedStarts):
    """One network updates y and z; gradients flow only through the last h-cycle."""

    h_cycles: int = knob(
        3, "Answer updates per supervision step (paper T).", low=1, high=MAX_CYCLES
    )
    l_cycles: int = knob(
        6, "Latent updates per answer update (paper n).", low=1, high=MAX_CYCLES
    )
    networks: ClassVar[tuple[str, ...]] = ("net",)
    metrics: ClassVar[tuple[str, ...]] = ()

    def step(
        self,
        model: BoundModel,
        rows: Batch,
        state: State,
        keys: Array,
        clock: Clock,
        keep: Keep | None = None,
    ) -> tuple[State, TRMOutputs]:
        """Deep recursion on the embedded question."""
        return self.recur(model, model.embed(rows.inputs), state, keep)

    infer = step

    def recur(
        self,
        model: BoundModel,
        x: Float[Array, "b l d"],
        state: State,
        keep: Keep | None = None,
    ) -> tuple[State, TRMOutputs]:
        """`h_cycles` latent recursions, the last with gradients, and the heads."""
        updates_per_turn = self.updates_per_turn(self.l_cycles)
        state, kept = iterate(
            self.latent_recursion,
            (model, x),
            state,
            times=self.h_cycles,
            grad_times=1,
            grad_step=partial(self.latent_recursion, unroll=updates_per_turn),
            keep=keep,
        )
        logits, q = model.predict(state.y)
        return state, TRMOutputs(logits, q, kept)

    def latent_recursion(
        self,
        inputs: tuple[BoundModel, Array],
        state: Latents,
        _: Any,
        unroll: int = 1,
    ) -> Latents:
        """One h-cycle: `l_cycles` latent updates, then one answer update."""
        model, x = inputs
        net = rematerialised(model.net, self.remat)
        y, z = state
        z, _ = repeat(lambda z: net(z + (y + x)), z, self.l_cycles, unroll=unroll)
        y = net(y + z)
        return Latents(y, z)

    def answer(self, outputs: TRMOutputs) -> StepOutput:
        """Halt as soon as q predicts a correct answer (ACT without a continue head)."""
        q_halt = outputs.q[:, 0]
        return StepOutput(outputs.logits, q_halt, q_halt > 0)
