# SPDX-License-Identifier: Apache-2.0
"""What rules with latents share: how the latents start, and unrolled updates."""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from trm_jax.model.config import ModelConfig
from trm_jax.model.layers import truncated_normal
from trm_jax.model.model import BoundModel
from trm_jax.rules.draws import folded, truncated
from trm_jax.rules.supervised import Supervised
from trm_jax.settings import knob
from trm_jax.types import Batch, Params

MAX_CYCLES = 10_000  # a supervision step with more would hardly end
MAX_UNROLLED = 16  # latent updates: the program grows with each
LATENTS = 3  # the draws of a start fold the row's key with this; a rule may have more
STARTS = ("published", "fixed", "random", "anchored")


class Latents(NamedTuple):
    """The two features that recur. HRM calls them z_H and z_L."""

    y: Float[Array, "b l d"]  # answer
    z: Float[Array, "b l d"]  # latent reasoning


@dataclasses.dataclass(frozen=True, kw_only=True)
class LatentRule(Supervised):
    """The starts and the unrolling of rules whose state is a tuple of latents.

    A rule adds `h_cycles` and `l_cycles`. With two latents, z is updated `l_cycles`
    times, then y once, and this `h_cycles` times.
    """

    starts: str = knob(
        "published",
        "Where each latent begins, with std 1: at one vector (published) or one vector "
        "per position (fixed), drawn once; at a draw per row and position (random); at "
        "that vector plus such a draw, over sqrt 2 (anchored).",
        choices=STARTS,
    )
    unroll: int = knob(
        0,
        "Latent updates per iteration of the loop, in the cycle with gradients; "
        "0 = all, up to 16, if remat is none, else 1.",
        low=0,
        high=MAX_CYCLES,
    )

    section: ClassVar[str]  # the name of the rule, for messages
    call_is_update: ClassVar[bool] = True  # whether a call returns the new latent
    latents: ClassVar[type[Any]] = Latents  # the type of the state

    def constants(self, key: Array, config: ModelConfig, params: Params) -> Params:
        """The initial latents that are drawn once and never trained: `d` or `l d`."""
        if self.starts == "random":
            return {}
        names = self.latents._fields
        draw = truncated_normal(1.0)
        keys = zip(names, jax.random.split(key, len(names)), strict=True)
        shape: tuple[int, ...] = (config.d_model,)
        if self.starts == "fixed":
            shape = (config.seq_len, *shape)
        return {name: draw(own, shape) for name, own in keys}

    def start(
        self, model: BoundModel, rows: Batch, keys: Array, *, training: bool
    ) -> Any:
        """The initial latents of every row, by `starts`."""
        c = model.config
        shape = (c.seq_len, c.d_model)

        def first(number: int, name: str) -> Array:
            if self.starts in ("published", "fixed"):
                value = jnp.broadcast_to(model.constants[name], (len(keys), *shape))
            else:
                value = truncated(folded(keys, LATENTS, number), shape)
            if self.starts == "anchored":
                value = math.sqrt(0.5) * (value + model.constants[name][None, None])
            return value.astype(c.compute_dtype)

        return self.latents(*(first(*at) for at in enumerate(self.latents._fields)))

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
