# SPDX-License-Identifier: Apache-2.0
"""The operators a network is made of: each maps `b l d` to `b l d`.

A new operator is one class here and one entry in SUBLAYERS.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from trm_jax.config import ModelConfig
from trm_jax.errors import ConfigError
from trm_jax.layers import Linear, lecun_init, matmul, rotary_tables, rotate, swiglu


class Attention(nn.Module):
    """Multi-head attention over all positions (no mask), with RoPE if asked for."""

    config: ModelConfig
    norm_axis: ClassVar[int] = -1

    @nn.compact
    def __call__(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        c, (b, l, d) = self.config, hidden.shape
        head_dim = d // c.num_heads
        qkv = Linear(3 * d, name="qkv")(hidden)
        q, k, v = jnp.split(qkv.reshape(b, l, 3 * c.num_heads, head_dim), 3, axis=2)
        if c.positions == "rope":
            tables = rotary_tables(l, head_dim, c.rope_theta)
            q, k = rotate(q, *tables), rotate(k, *tables)
        out = jax.nn.dot_product_attention(q, k, v)
        return Linear(d, name="out")(out.reshape(b, l, d))


class SwiGlu(nn.Module):
    """Gated feed-forward over the channels (arXiv 2002.05202)."""

    config: ModelConfig
    norm_axis: ClassVar[int] = -1

    @nn.compact
    def __call__(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        d = hidden.shape[-1]
        width = self.config.inner_width(d, self.config.swiglu_width)
        gate_up = Linear(2 * width, name="gate_up")(hidden)
        return Linear(d, name="down")(swiglu(gate_up))


class TokenMlp(nn.Module):
    """TRM's MLP-t: a SwiGLU over the positions, the same for every channel.

    Its norm runs over the positions too. The product is written `f l @ l (b d)`:
    moving whole rows of d costs far less than transposing `b l d` to `b d l`.
    """

    config: ModelConfig
    norm_axis: ClassVar[int] = 1

    @nn.compact
    def __call__(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        b, l, d = hidden.shape
        width = self.config.inner_width(l, self.config.token_mlp_width)
        up = self.param("gate_up", lecun_init, (l, 2 * width), jnp.float32)
        down = self.param("down", lecun_init, (width, l), jnp.float32)
        tokens = hidden.swapaxes(0, 1).reshape(l, b * d)
        inner = swiglu(matmul(up.T.astype(hidden.dtype), tokens), axis=0)
        out = matmul(down.T.astype(hidden.dtype), inner)
        return out.reshape(l, b, d).swapaxes(0, 1)


SUBLAYERS = {"attention": Attention, "swiglu": SwiGlu, "token_mlp": TokenMlp}


def sublayer_class(name: str) -> type[nn.Module]:
    """The operator called `name`. Raises ConfigError for a name nobody knows."""
    if name not in SUBLAYERS:
        raise ConfigError(
            f"model.layers: unknown sublayer {name!r}; "
            f"expected one of {', '.join(SUBLAYERS)}"
        )
    return SUBLAYERS[name]
