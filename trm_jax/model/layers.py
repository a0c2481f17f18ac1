# SPDX-License-Identifier: Apache-2.0
"""What sublayers share: RMS norm, matrix product, rotary embedding, initialisers."""

from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from trm_jax.types import MATMUL

RMS_EPS = 1e-5
_TRUNCATED_STD = 0.87962566103423978  # std of a unit normal cut at two sigma

# Truncated LeCun normal: std 1/sqrt(fan_in) after truncation.
lecun_init = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")


def truncated_normal(std: float) -> nn.initializers.Initializer:
    """Normal initialiser truncated at two sigma; its std after truncation is `std`."""
    return nn.initializers.truncated_normal(std / _TRUNCATED_STD)


def rms_norm(h: Float[Array, "..."], *, axis: int = -1) -> Float[Array, "..."]:
    """Return h / rms(h) over one axis, without a weight; in float32 or wider."""
    wide = h.astype(jnp.promote_types(h.dtype, jnp.float32))
    mean_square = jnp.mean(wide * wide, axis, keepdims=True)
    return (wide * lax.rsqrt(mean_square + RMS_EPS)).astype(h.dtype)


def matmul(
    a: Float[Array, "i j"], b: Float[Array, "k o"], *, a_axis: int = 1
) -> Float[Array, "m o"]:
    """Contract an axis of `a`, by default the second, with the first axis of `b`.

    Both have one dtype. bfloat16 products have no forward-mode derivative.
    """
    if a.dtype == jnp.bfloat16:
        return _narrow_matmul(a_axis, a, b)
    return checkpoint_name(lax.dot_general(a, b, _axes(a_axis, 0)), MATMUL)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _narrow_matmul(a_axis: int, a: Array, b: Array) -> Array:
    """The product of bfloat16 matrices.

    With AVX-512, XLA's CPU backend computes it twice as fast if the result is float32.
    This holds in the backward pass too, where only a custom VJP can set the dtype of
    the results.
    The axes are given without transposes: XLA would fold a transpose into the product
    after it has chosen how to compute it, and then has no way to compute it.
    """
    return _product(a, b, a_axis, 0)


def _axes(a_axis: int, b_axis: int) -> Any:
    return (((a_axis,), (b_axis,)), ((), ()))


def _product(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
    """Contract an axis of `a` with an axis of `b`, without explicit transposes."""
    plain = partial(lax.dot_general, dimension_numbers=_axes(a_axis, b_axis))

    def wide(a: Array, b: Array) -> Array:
        return plain(a, b, preferred_element_type=jnp.float32).astype(a.dtype)

    on_cpu = wide if has_avx512() else plain
    return lax.platform_dependent(a, b, cpu=on_cpu, default=plain)


@cache
def has_avx512(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this processor has AVX-512; False where the system does not say."""
    return cpuinfo.is_file() and "avx512f" in cpuinfo.read_text(encoding="utf-8")


def _matmul_fwd(a_axis: int, a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    return checkpoint_name(_product(a, b, a_axis, 0), MATMUL), (a, b)


def _matmul_bwd(
    a_axis: int, residuals: tuple[Array, Array], grad: Array
) -> tuple[Array, Array]:
    a, b = residuals
    if a_axis == 0:
        return _product(b, grad, 1, 1), _product(a, grad, 1, 0)
    return _product(grad, b, 1, 1), _product(a, grad, 0, 0)


_narrow_matmul.defvjp(_matmul_fwd, _matmul_bwd)


def weight_dtype(compute_dtype: Any) -> Any:
    """The dtype of weights: float32, or float64 if the model computes in float64."""
    return jnp.promote_types(compute_dtype, jnp.float32)


class Linear(nn.Module):
    """`... i -> ... o` without bias; the product is in the input's dtype.

    `product` may return another width than its second argument has.
    """

    features: int
    init: Any = lecun_init
    product: Callable[[Any, Any], Any] = matmul

    @nn.compact
    def __call__(self, h: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
        shape = (h.shape[-1], self.features)
        kernel = self.param("kernel", self.init, shape, weight_dtype(h.dtype))
        flat = self.product(h.reshape(-1, h.shape[-1]), kernel.astype(h.dtype))
        return flat.reshape(*h.shape[:-1], flat.shape[-1])


def rotary_tables(
    length: int, head_dim: int, theta: float
) -> tuple[Float[Array, "l 1 k"], Float[Array, "l 1 k"]]:
    """Cosines and sines of the rotate-half form (RoPE, arXiv 2104.09864).

    Rates, angles and tables are rounded to float32, as in the published code, whatever
    the dtype of the model.
    """
    angle = _angles(np.arange(length), head_dim, theta)
    return _cos_sin(angle, angle)


def rotary_tables_2d(
    grid_shape: tuple[int, int],
    prefix_len: int,
    head_dim: int,
    theta: float,
    *,
    halves: bool = False,
) -> tuple[Float[Array, "l 1 k"], Float[Array, "l 1 k"]]:
    """Cosines and sines of two angles per position: of its row and of its column.

    Prefix token j is at (0, j), and the cell in row r and column c at (r + prefix_len,
    c). Each axis has head_dim / 4 rates. The two angles are concatenated before they
    are doubled, as in jvdillon/sic, or with `halves` each is doubled by itself, as in
    locuslab/EqR, for `rotate(..., halves=True)`.
    """
    r, c = np.indices(grid_shape).reshape(2, -1)
    row = np.concatenate([np.zeros(prefix_len, int), r + prefix_len])
    column = np.concatenate([np.arange(prefix_len), c])
    by_row, by_column = (_angles(v, head_dim // 2, theta) for v in (row, column))
    if halves:
        return _cos_sin(by_row, by_row, by_column, by_column)
    return _cos_sin(by_row, by_column, by_row, by_column)


def _angles(places: np.ndarray, width: int, theta: float) -> np.ndarray:
    """The angles `l width/2` of places on one axis."""
    exponents = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    rate = np.float32(1) / np.float32(theta) ** exponents
    return np.outer(places.astype(np.float32), rate).astype(np.float64)


def _cos_sin(*angles: np.ndarray) -> tuple[Array, Array]:
    """The tables of the angles `l width` of consecutive parts of the channels."""
    angle = np.concatenate(angles, axis=-1)[:, None]
    return jnp.float32(np.cos(angle)), jnp.float32(np.sin(angle))


def rotate(
    h: Float[Array, "b l h k"],
    cos: Float[Array, "l 1 k"],
    sin: Float[Array, "l 1 k"],
    *,
    halves: bool = False,
) -> Float[Array, "b l h k"]:
    """Rotate each head's vector by the angles of its position, in float32 or wider.

    Channel i forms a pair with channel i + k/2, or with `halves` within its own half
    with channel i + k/4.
    """
    wide = h.astype(jnp.promote_types(h.dtype, cos.dtype))
    parts = jnp.split(wide, 4 if halves else 2, axis=-1)
    pairs = zip(parts[::2], parts[1::2], strict=True)
    turned = jnp.concatenate(
        [part for low, high in pairs for part in (-high, low)], axis=-1
    )
    return (wide * cos[None] + turned * sin[None]).astype(h.dtype)


def gated_norm(gate_up: Any, axis: int = -1) -> Array:
    """sigmoid(gate) * rms_norm(gate * up), halves as in `swiglu` (jvdillon/sic)."""
    gate, up = jnp.split(gate_up, 2, axis)
    return nn.sigmoid(gate) * rms_norm(gate * up, axis=axis)
