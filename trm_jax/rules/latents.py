# SPDX-License-Identifier: Apache-2.0
"""What TRM and HRM share: two latents with fixed starts, and the same settings."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from trm_jax.model.config import ModelConfig
from trm_jax.model.layers import truncated_normal
from trm_jax.model.model import BoundModel
from trm_jax.rules.losses import LOSSES, RowLosses, row_losses
from trm_jax.rules.recursion import REMAT_POLICIES
from trm_jax.settings import knob
from trm_jax.types import Batch, Params

MAX_CYCLES = 10_000  # a supervision step with more would hardly end
MAX_UNROLLED = 16  # latent updates: the program grows with each


class Latents(NamedTuple):
    """The two features that recur. HRM calls them z_H and z_L."""

    y: Float[Array, "b l d"]  # answer
    z: Float[Array, "b l d"]  # latent reasoning


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoLatents:
    """The settings, the starts, the loss and the unrolling of rules with y and z.

    A rule adds `h_cycles` and `l_cycles`: z is updated `l_cycles` times, then y once,
    and this `h_cycles` times.
    """

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

    no_decay: ClassVar[tuple[str, ...]] = ()

    def module(self, config: ModelConfig) -> None:
        """None: these rules have no parameters of their own."""

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
    ) -> Latents:
        """The same initial y and z for every row and position."""
        shape = (len(rows.weight), model.config.seq_len, model.config.d_model)
        first = {
            name: jnp.broadcast_to(value, shape).astype(model.config.compute_dtype)
            for name, value in model.constants.items()
        }
        return Latents(**first)

    def updates_per_turn(self, times: int) -> int:
        """Latent updates per turn of the loop, in the cycle with gradients.

        Without a loop no residual is copied into a stack. With remat the loop stays:
        before jax 0.12, XLA on a CPU drops the barriers of `jax.checkpoint`, and then
        computes everything again early in straight-line code, which saves no memory.
        """
        most = min(times, MAX_UNROLLED)
        return self.unroll or (most if self.remat == "none" else 1)

    def loss(self, outputs: Any, rows: Batch) -> RowLosses:
        """Cell cross-entropy, and a halting loss whose target is "all correct"."""
        return row_losses(
            outputs.logits,
            outputs.q[:, 0],
            rows,
            loss=self.cell_loss,
            label_smoothing=self.label_smoothing,
            halt_weight=self.halt_weight,
        )
