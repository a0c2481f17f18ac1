# SPDX-License-Identifier: Apache-2.0
"""TRM with one latent: Figure 4 of "Less is More" (arXiv 2510.04871).

z is both the reasoning and the answer.
"""

import dataclasses
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Array, Float

from trm_jax.model.model import BoundModel
from trm_jax.rules.latents import MAX_CYCLES
from trm_jax.rules.recursion import rematerialised, repeat
from trm_jax.rules.trm import TRM
from trm_jax.settings import knob


class Latent(NamedTuple):
    """The one feature that recurs."""

    z: Float[Array, "b l d"]

    @property
    def y(self) -> Float[Array, "b l d"]:
        """The state that the heads read: z itself."""
        return self.z


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneLatent(TRM):
    """The network updates z, `l_cycles` + 1 times per h-cycle: as often as in TRM."""

    l_cycles: int = knob(
        6, "Network calls per h-cycle, less one (paper n).", low=1, high=MAX_CYCLES
    )
    latents: ClassVar[type[Any]] = Latent
    section: ClassVar[str] = "one_latent"

    @property
    def calls_per_cycle(self) -> int:
        """Updates of z per h-cycle."""
        return self.l_cycles + 1

    def calls(self) -> tuple[str, ...]:
        """Every call updates z."""
        return ("z",) * (self.calls_per_cycle * self.h_cycles)

    def updates_per_turn(self, _: int) -> int:
        """Updates of z per turn of the loop, in the cycle with gradients."""
        return super().updates_per_turn(self.calls_per_cycle)

    def latent_recursion(  # type: ignore[override]
        self,
        inputs: tuple[BoundModel, Array],
        state: Latent,
        _: Any,
        unroll: int = 1,
    ) -> Latent:
        """One h-cycle."""
        model, x = inputs
        net = rematerialised(model.net, self.remat)
        times = self.calls_per_cycle
        z, _ = repeat(lambda z: net(z + x), state.z, times, unroll=unroll)
        return Latent(z)
