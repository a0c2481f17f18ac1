# SPDX-License-Identifier: Apache-2.0
"""What TRM and HRM share: latents with fixed starts, and unrolled updates."""

import dataclasses
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from trm_jax.model.config import ModelConfig
from trm_jax.model.layers import truncated_normal
from trm_jax.model.model import BoundModel
from trm_jax.rules.supervised import Supervised
from trm_jax.settings import knob
from trm_jax.types import Batch, Params

MAX_CYCLES = 10_000  # a supervision step with more would hardly end
MAX_UNROLLED = 16  # latent updates: the program grows with each


class Latents(NamedTuple):
    """The two features that recur. HRM calls them z_H and z_L."""

    y: Float[Array, "b l d"]  # answer
    z: Float[Array, "b l d"]  # latent reasoning


@dataclasses.dataclass(frozen=True, kw_only=True)
class FixedStarts(Supervised):
    """The starts and the unrolling of rules whose state is a tuple of latents.

    A rule adds `h_cycles` and `l_cycles`. With two latents, z is updated `l_cycles`
    times, then y once, and this `h_cycles` times.
    """

    unroll: int = knob(
        0,
        "Latent updates per iteration of the loop, in the cycle with gradients; "
        "0 = all, up to 16, if remat is none, else 1.",
        low=0,
        high=MAX_CYCLES,
    )

    latents: ClassVar[type[Any]] = Latents  # the type of the state

    def constants(self, key: Array, config: ModelConfig) -> Params:
        """The initial latents, `d` each, drawn once (std 1) and never trained."""
        names = self.latents._fields
        draw = truncated_normal(1.0)
        keys = zip(names, jax.random.split(key, len(names)), strict=True)
        return {name: draw(own, (config.d_model,)) for name, own in keys}

    def start(
        self, model: BoundModel, rows: Batch, keys: Array, *, training: bool
    ) -> Any:
        """The same initial latents for every row and position."""
        shape = (len(rows.weight), model.config.seq_len, model.config.d_model)
        first = {
            name: jnp.broadcast_to(value, shape).astype(model.config.compute_dtype)
            for name, value in model.constants.items()
        }
        return self.latents(**first)

    def calls(self) -> tuple[str, ...]:
        """The latent that each network call of a supervision step updates, in order."""
        own: Any = self
        return (("z",) * own.l_cycles + ("y",)) * own.h_cycles

    def updates_per_turn(self, times: int) -> int:
        """Latent updates per turn of the loop, in the cycle with gradients.

        Without a loop no residual is copied into a stack. With remat the loop stays:
        before jax 0.12, XLA on a CPU drops the barriers of `jax.checkpoint`, and then
        computes everything again early in straight-line code, which saves no memory.
        """
        most = min(times, MAX_UNROLLED)
        return self.unroll or (most if self.remat == "none" else 1)
