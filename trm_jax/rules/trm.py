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

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from trm_jax.model.config import ModelConfig
from trm_jax.model.layers import truncated_normal
from trm_jax.model.model import BoundModel
from trm_jax.rules.base import Clock, Keep
from trm_jax.rules.losses import LOSSES, RowLosses, row_losses
from trm_jax.rules.recursion import REMAT_POLICIES, iterate, rematerialised, repeat
from trm_jax.settings import knob
from trm_jax.types import Batch, Params, StepOutput

MAX_CYCLES = 10_000  # a supervision step with more would hardly end
MAX_UNROLLED = 16  # latent updates: the program grows with each


class TRMState(NamedTuple):
    """The two features that recur."""

    y: Float[Array, "b l d"]  # answer
    z: Float[Array, "b l d"]  # latent reasoning


class TRMOutputs(NamedTuple):
    """Predictions of a supervision step, and what `keep` returned for its h-cycles."""

    logits: Float[Array, "b m v"]
    q: Float[Array, "b c"]
    kept: Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class TRM:
    """One network updates y and z; gradients flow only through the last h-cycle."""

    h_cycles: int = knob(
        3, "Answer updates per supervision step (paper T).", low=1, high=MAX_CYCLES
    )
    l_cycles: int = knob(
        6, "Latent updates per answer update (paper n).", low=1, high=MAX_CYCLES
    )
    remat: str = knob(
        "none",
        "What the backward pass recomputes: nothing, all but matrix products "
        "(dots), everything (full).",
        choices=tuple(REMAT_POLICIES),
    )
    unroll: int = knob(
        0,
        "Latent updates per iteration of the loop, in the cycle with gradients; "
        "0 = all, up to 16, if remat is none, else 1.",
        low=0,
        high=MAX_CYCLES,
    )
    cell_loss: str = knob("stablemax", "Cross-entropy of the cells.", choices=LOSSES)
    label_smoothing: float = knob(
        0.0, "Share of the label given to all tokens.", low=0.0, below=1.0
    )
    halt_weight: float = knob(0.5, "Weight of the halting loss.", low=0.0)

    networks: ClassVar[tuple[str, ...]] = ("net",)
    metrics: ClassVar[tuple[str, ...]] = ()
    no_decay: ClassVar[tuple[str, ...]] = ()

    def module(self, config: ModelConfig) -> None:
        """None: TRM has no parameters of its own."""

    def constants(self, key: Array, config: ModelConfig) -> Params:
        """The initial y and z, `d` each, drawn once (std 1) and never trained."""
        y_key, z_key = jax.random.split(key)
        draw = truncated_normal(1.0)
        return {
            "y": draw(y_key, (config.d_model,)),
            "z": draw(z_key, (config.d_model,)),
        }

    def start(
        self, model: BoundModel, rows: Batch, keys: Array, *, training: bool
    ) -> TRMState:
        """The same initial y and z for every row and position."""
        shape = (len(rows.weight), model.config.seq_len, model.config.d_model)
        first = {
            name: jnp.broadcast_to(value, shape).astype(model.config.compute_dtype)
            for name, value in model.constants.items()
        }
        return TRMState(**first)

    def step(
        self,
        model: BoundModel,
        rows: Batch,
        state: TRMState,
        keys: Array,
        clock: Clock,
        keep: Keep | None = None,
    ) -> tuple[TRMState, TRMOutputs]:
        """Deep recursion: `h_cycles` latent recursions, the last with gradients."""
        x = model.embed(rows.inputs)
        state, kept = iterate(
            self.latent_recursion,
            (model, x),
            state,
            times=self.h_cycles,
            grad_times=1,
            grad_step=partial(self.latent_recursion, unroll=self.updates_per_turn),
            keep=keep,
        )
        logits, q = model.predict(state.y)
        return state, TRMOutputs(logits, q, kept)

    infer = step

    @property
    def updates_per_turn(self) -> int:
        """Latent updates per turn of the loop, in the cycle with gradients.

        Without a loop no residual is copied into a stack. With remat the loop stays:
        before jax 0.12, XLA on a CPU drops the barriers of `jax.checkpoint`, and then
        computes everything again early in straight-line code, which saves no memory.
        """
        most = min(self.l_cycles, MAX_UNROLLED)
        return self.unroll or (most if self.remat == "none" else 1)

    def latent_recursion(
        self,
        inputs: tuple[BoundModel, Array],
        state: TRMState,
        _: Any,
        unroll: int = 1,
    ) -> TRMState:
        """One h-cycle: `l_cycles` latent updates, then one answer update."""
        model, x = inputs
        net = rematerialised(model.net, self.remat)
        y, z = state
        z, _ = repeat(lambda z: net(z + (y + x)), z, self.l_cycles, unroll=unroll)
        y = net(y + z)
        return TRMState(y, z)

    def loss(self, outputs: TRMOutputs, rows: Batch) -> RowLosses:
        """Cell cross-entropy, and a halting loss whose target is "all correct"."""
        return row_losses(
            outputs.logits,
            outputs.q[:, 0],
            rows,
            loss=self.cell_loss,
            label_smoothing=self.label_smoothing,
            halt_weight=self.halt_weight,
        )

    def answer(self, outputs: TRMOutputs) -> StepOutput:
        """Halt as soon as q predicts a correct answer (ACT without a continue head)."""
        q_halt = outputs.q[:, 0]
        return StepOutput(outputs.logits, q_halt, q_halt > 0)
