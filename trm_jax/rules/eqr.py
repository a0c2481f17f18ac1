# SPDX-License-Identifier: Apache-2.0
"""EqR: TRM with damped, noisy updates and random starts, in training and at test.

The source is the public code of locuslab/EqR (models/eqr.py). Every network call, with
or without gradients, mixes its result with the old latent and adds noise:
h <- damping h + (1 - damping) net(h + injected) + noise N(0, 1).
"""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array

from trm_jax.model.model import BoundModel
from trm_jax.rules.draws import folded, normal
from trm_jax.rules.latents import STARTS, Latents
from trm_jax.rules.levers import CALL_NOISE
from trm_jax.rules.recursion import rematerialised, repeat
from trm_jax.rules.trm import TRM
from trm_jax.settings import knob
from trm_jax.types import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class EqR(TRM):
    """TRM's cycles; evaluations draw as training does, so seeds are restarts."""

    starts: str = knob("random", "As in rule.trm.starts.", choices=STARTS)
    damping: float = knob(
        0.05, "Share of the old latent in every update.", low=0.0, below=1.0
    )
    noise: float = knob(
        0.01, "Std of the noise that every update adds per element.", low=0.0
    )
    section: ClassVar[str] = "eqr"
    call_is_update: ClassVar[bool] = False  # it is damped, and noise is added

    def inputs(self, model: BoundModel, rows: Batch, keys: Array) -> Any:
        """What every network call reads: also the key of every row."""
        return *super().inputs(model, rows, keys), keys

    def latent_recursion(
        self, inputs: Any, state: Latents, i: Any, unroll: int = 1
    ) -> Latents:
        """H-cycle i: `l_cycles` latent updates, then one answer update.

        The noise depends on the row's key, i and the call. There is none without keys.
        """
        model, x, *keys = inputs
        net = rematerialised(model.net, self.remat)
        y, z = state

        def updated(h: Array, injected: Array, call: Any) -> Array:
            h = self.damping * h + (1 - self.damping) * net(h + injected)
            if self.noise and keys:
                drawn = normal(folded(keys[0], CALL_NOISE, i, call), h.shape[1:])
                h = h + self.noise * drawn.astype(h.dtype)
            return h

        def update(at: tuple[Array, Array]) -> tuple[Array, Array]:
            z, call = at
            return updated(z, y + x, call), call + 1

        first = z, jnp.int32(0)
        (z, call), _ = repeat(update, first, self.l_cycles, unroll=unroll)
        y = updated(y, z, call)
        return Latents(y, z)
