# SPDX-License-Identifier: Apache-2.0
"""The operators a network is made of: each maps `b l d` to `b l d`.

A new operator is one class here and one entry in SUBLAYERS.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from trm_jax.errors import ConfigError
from trm_jax.model.config import ModelConfig
from trm_jax.model.layers import (
    Linear,
    lecun_init,
    matmul,
    rms_norm,
    rotary_tables,
    rotate,
    swiglu,
)
from trm_jax.ops.conv import causal_conv
from trm_jax.ops.ssd.ssd import ssd
from trm_jax.types import Params


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


class Mamba2(nn.Module):
    """Mamba-2 mixer (arXiv 2405.21060, section 7), left to right unless told else.

    "both" adds the outputs of the two directions, computed with the same weights.
    """

    config: ModelConfig
    direction: str = "forward"
    norm_axis: ClassVar[int] = -1

    @nn.compact
    def __call__(self, hidden: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        c, (b, l, d) = self.config, hidden.shape
        inner, bc = c.expand * d, 2 * c.num_groups * c.d_state
        heads = inner // c.head_dim
        projected = Linear(2 * inner + bc + heads, name="in_proj")(hidden)
        gate, xbc, dt = jnp.split(projected, [inner, 2 * inner + bc], axis=-1)
        kernel, bias = self._conv_params(inner + bc)
        A_log, D, dt_bias = self._head_params(heads)
        norm_weight = self.param(
            "norm_weight", nn.initializers.ones, (inner,), jnp.float32
        )
        wide = jnp.promote_types(hidden.dtype, jnp.float32)
        dt = nn.softplus(dt.astype(wide) + dt_bias[None, None])

        def scan(flip: Callable[[Array], Array]) -> Array:
            mixed = nn.silu(causal_conv(flip(xbc), kernel, bias))
            x, B, C = jnp.split(mixed, [inner, inner + bc // 2], axis=-1)
            x = x.reshape(b, l, heads, c.head_dim)
            B, C = (v.reshape(b, l, c.num_groups, c.d_state) for v in (B, C))
            chosen = None if c.ssd_implementation == "auto" else c.ssd_implementation
            y, _ = ssd(
                *(x, flip(dt), -jnp.exp(A_log), B, C),
                chunk_size=c.chunk_size,
                implementation=chosen,
            )
            y = checkpoint_name(y, "ssd") + D[None, None, :, None] * x
            gated = flip(y.reshape(b, l, inner)) * nn.silu(gate.astype(y.dtype))
            groups = gated.reshape(b, l, c.num_groups, inner // c.num_groups)
            return rms_norm(groups).reshape(b, l, inner) * norm_weight[None, None]

        out = sum(map(scan, FLIPS[self.direction]), jnp.zeros((), dt.dtype))
        return Linear(d, name="out_proj")(out.astype(hidden.dtype))

    def _conv_params(self, width: int) -> tuple[Params, Params]:
        window = self.config.d_conv

        def uniform(key: Array, shape: tuple[int, ...]) -> Array:
            limit = 1 / math.sqrt(window)
            return jax.random.uniform(
                key, shape, jnp.float32, minval=-limit, maxval=limit
            )

        kernel = self.param("conv_kernel", uniform, (window, width))
        return kernel, self.param("conv_bias", uniform, (width,))

    def _head_params(self, heads: int) -> tuple[Params, Params, Params]:
        """A in [-16, -1] and, with no input, dt in [1e-3, 1e-1], log-uniform."""

        def log_rate(key: Array, shape: tuple[int, ...]) -> Array:
            return jnp.log(
                jax.random.uniform(key, shape, jnp.float32, minval=1.0, maxval=16.0)
            )

        def inverse_softplus_dt(key: Array, shape: tuple[int, ...]) -> Array:
            low, high = math.log(1e-3), math.log(1e-1)
            dt = jnp.exp(
                jax.random.uniform(key, shape, jnp.float32, minval=low, maxval=high)
            )
            return dt + jnp.log(-jnp.expm1(-dt))

        A_log = self.param("A_log", log_rate, (heads,))
        D = self.param("D", nn.initializers.ones, (heads,), jnp.float32)
        return A_log, D, self.param("dt_bias", inverse_softplus_dt, (heads,))


def _as_is(v: Array) -> Array:
    return v


def _reversed(v: Array) -> Array:
    return v[:, ::-1]


FLIPS = {"forward": (_as_is,), "backward": (_reversed,), "both": (_as_is, _reversed)}

SUBLAYERS: dict[str, Callable[..., nn.Module]] = {
    "attention": Attention,
    "swiglu": SwiGlu,
    "token_mlp": TokenMlp,
    "mamba2": Mamba2,
    "mamba2_backward": partial(Mamba2, direction="backward"),
    "mamba2_both": partial(Mamba2, direction="both"),
}


def sublayer_class(name: str) -> Callable[..., nn.Module]:
    """The operator called `name`. Raises ConfigError for a name nobody knows."""
    if name not in SUBLAYERS:
        raise ConfigError(
            f"model.layers: unknown sublayer {name!r}; "
            f"expected one of {', '.join(SUBLAYERS)}"
        )
    return SUBLAYERS[name]
