# SPDX-License-Identifier: Apache-2.0
"""The tiny network: sublayers in a row, each applied as h = rms(h + f(h))."""

import flax.linen as nn
from jaxtyping import Array, Float

from trm_jax.model.config import ModelConfig
from trm_jax.model.layers import rms_norm
from trm_jax.model.sublayers import sublayer_class


class Network(nn.Module):
    """Post-norm stack of `config.layers`; one network serves y and z updates."""

    config: ModelConfig

    @nn.compact
    def __call__(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        for i, name in enumerate(self.config.layers):
            sublayer = sublayer_class(name)(self.config, name=f"{i}_{name}")
            hidden = rms_norm(hidden + sublayer(hidden), axis=sublayer.norm_axis)
        return hidden
