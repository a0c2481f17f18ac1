# SPDX-License-Identifier: Apache-2.0
"""HRM with parameters of its own and a start that each row draws."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from trm_jax.model.config import ModelConfig
from trm_jax.model.layers import truncated_normal
from trm_jax.model.model import BoundModel
from trm_jax.rules.hrm import HRM
from trm_jax.rules.latents import Latents
from trm_jax.types import Batch, Params


class Gate(nn.Module):
    """How much of the question each channel of z sees."""

    width: int

    @nn.compact
    def __call__(self) -> Float[Array, " d"]:
        return self.param("gate", nn.initializers.ones, (self.width,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair(HRM):
    """`low` sees the question through a gate, and z starts at random."""

    no_decay: ClassVar[tuple[str, ...]] = ("gate",)

    def module(self, config: ModelConfig) -> Gate:
        """The gate."""
        return Gate(config.d_model)

    def constants(self, key: Array, config: ModelConfig, params: Params) -> Params:
        """The first y, the same for every row and position."""
        return {"y": truncated_normal(1.0)(key, (config.d_model,))}

    def start(
        self, model: BoundModel, rows: Batch, keys: Array, *, training: bool
    ) -> Latents:
        """A z that each row draws for itself."""
        config = model.config
        shape, dtype = (config.seq_len, config.d_model), config.compute_dtype
        z = jax.vmap(lambda key: truncated_normal(1.0)(key, shape))(keys)
        y = jnp.broadcast_to(model.constants["y"], z.shape)
        return Latents(y.astype(dtype), z.astype(dtype))

    def latent_recursion(self, inputs: Any, *args: Any, **how: Any) -> Latents:
        """One h-cycle, with the gate on the question."""
        model, x = inputs
        gate = model.own().astype(x.dtype)[None, None]
        return super().latent_recursion((model, gate * x), *args, **how)
