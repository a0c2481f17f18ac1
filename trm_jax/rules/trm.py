# SPDX-License-Identifier: Apache-2.0
"""TRM: Figure 3 of "Less is More" (arXiv 2510.04871), from top to bottom.

The paper's loop over supervision steps is unrolled over training steps, and the carry
is its loop variable: one call of `TRM.step` is one pass of that loop, and the y and z
that it returns wait in the carry for the next training step. docs/figure3.md sets each
line of the figure beside its line here.
"""

import dataclasses
from functools import partial
from typing import Any, ClassVar

from jaxtyping import Array

from trm_jax.model.model import BoundModel
from trm_jax.rules.base import Clock, Keep
from trm_jax.rules.curriculum import Curriculum
from trm_jax.rules.latents import MAX_CYCLES, Latents
from trm_jax.rules.levers import CycleOutputs, Levers
from trm_jax.rules.recursion import iterate, rematerialised, repeat
from trm_jax.settings import knob
from trm_jax.types import Batch, State, StepOutput


@dataclasses.dataclass(frozen=True, kw_only=True)
class TRM(Curriculum, Levers):
    """One network updates y and z; gradients flow only through the last h-cycle.

    `Curriculum` and `Levers` hold settings that are not in the figure; they are off by
    default.
    """

    h_cycles: int = knob(
        3, "Answer updates per supervision step (paper T).", low=1, high=MAX_CYCLES
    )
    l_cycles: int = knob(
        6, "Latent updates per answer update (paper n).", low=1, high=MAX_CYCLES
    )
    networks: ClassVar[tuple[str, ...]] = ("net",)
    section: ClassVar[str] = "trm"

    def step(
        self,
        model: BoundModel,
        rows: Batch,
        state: State,
        keys: Array,
        clock: Clock,
        keep: Keep | None = None,
    ) -> tuple[State, CycleOutputs]:
        """Deep recursion on the embedded question, and what the loss reads of it."""
        return self.trained(self.inputs(model, rows, keys), state, keys, clock, keep)

    def infer(
        self,
        model: BoundModel,
        rows: Batch,
        state: State,
        keys: Array,
        clock: Clock,
        keep: Keep | None = None,
    ) -> tuple[State, CycleOutputs]:
        """Deep recursion on the embedded question."""
        return self.recur(self.inputs(model, rows, keys), state, clock, keep)

    def inputs(self, model: BoundModel, rows: Batch, keys: Array) -> Any:
        """What every network call reads: the model, and the embedded question x."""
        x = model.embed(rows.inputs)
        return model, x

    def recur(
        self, inputs: Any, state: State, clock: Clock, keep: Keep | None = None
    ) -> tuple[State, CycleOutputs]:
        """Deep recursion, and the heads."""
        model, *_ = inputs
        form = partial(self.deep_recursion, keep=keep)
        state, kept = self.growth.run(form, clock, inputs, state)
        logits, q = model.predict(state.y)
        return state, CycleOutputs(logits, q, kept)

    def deep_recursion(
        self, grad_cycles: int, inputs: Any, state: State, keep: Keep | None
    ) -> tuple[State, Any]:
        """`h_cycles` latent recursions, the last `grad_cycles` with gradients."""
        updates_per_turn = self.updates_per_turn(self.l_cycles)
        return iterate(
            self.latent_recursion,
            inputs,
            state,
            times=self.h_cycles,
            grad_times=grad_cycles,
            grad_step=partial(self.latent_recursion, unroll=updates_per_turn),
            keep=keep,
        )

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

    def answer(self, outputs: CycleOutputs) -> StepOutput:
        """Halt as soon as q predicts a correct answer (ACT without a continue head)."""
        q_halt = outputs.q[:, 0]
        return StepOutput(outputs.logits, q_halt, q_halt > 0)
