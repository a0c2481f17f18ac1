# SPDX-License-Identifier: Apache-2.0
"""Token shift: each position is mixed with the one `reach` places before it."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from trm_jax.model.layers import Linear
from trm_jax.model.sublayers.base import Sublayer
from trm_jax.settings import knob


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShiftSettings:
    """config.model.shift."""

    reach: int = knob(1, "Positions between the two tokens.", low=1)

    def check(self, d_model: int, dtype: Any) -> None:
        """Every reach fits every width."""


class Shift(Sublayer):
    """W [h_t, h_(t - reach)], with zeros before the first position."""

    section: ClassVar[str] = "shift"
    Settings: ClassVar[type] = ShiftSettings

    @nn.compact
    def __call__(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        reach, length = self.settings.reach, hidden.shape[1]
        padded = jnp.pad(hidden, ((0, 0), (reach, 0), (0, 0)))
        pairs = jnp.concatenate([hidden, padded[:, :length]], axis=-1)
        return Linear(hidden.shape[-1], name="mix")(pairs)
