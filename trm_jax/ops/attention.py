# SPDX-License-Identifier: Apache-2.0
"""Softmax attention over all positions: several forms behind one function."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

IMPLEMENTATIONS = ("xla", "cudnn")
_CUDNN_DTYPES = ("bfloat16", "float16")


def attend(
    q: Float[Array, "b l h k"],
    k: Float[Array, "b l h k"],
    v: Float[Array, "b l h k"],
    *,
    implementation: str = "xla",
) -> Float[Array, "b l h k"]:
    """softmax(q k / sqrt(width)) v, whose softmax is float32, or float64 in float64.

    "xla" writes the scores `b h l l` and keeps them for the backward pass. "cudnn" does
    neither: its kernels go through the keys block by block. It needs an NVIDIA GPU and
    bfloat16, and it has no forward-mode derivative.

    Raises ValueError for an unknown implementation, and what JAX raises where cuDNN
    cannot compute it (RuntimeError, NotImplementedError).
    """
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"unknown attention implementation {implementation!r}; expected one of "
            f"{', '.join(IMPLEMENTATIONS)}"
        )
    if q.dtype == jnp.float64:
        scores = jnp.einsum("blhk,bmhk->bhlm", q, k) / math.sqrt(q.shape[-1])
        return jnp.einsum("bhlm,bmhk->blhk", jax.nn.softmax(scores), v)
    if implementation == "xla":
        return jax.nn.dot_product_attention(q, k, v, implementation="xla")
    return _by_cudnn(q, k, v)


def _by_cudnn(q: Array, k: Array, v: Array) -> Array:
    """Attention by cuDNN, whose backward pass takes even lengths only."""
    b, l = q.shape[:2]
    by_cudnn = partial(jax.nn.dot_product_attention, implementation="cudnn")
    if l % 2 == 0:
        return by_cudnn(q, k, v)
    one_more = ((0, 0), (0, 1), (0, 0), (0, 0))
    padded = (jnp.pad(each, one_more) for each in (q, k, v))
    lengths = jnp.full(b, l, jnp.int32)
    out = by_cudnn(*padded, query_seq_lengths=lengths, key_value_seq_lengths=lengths)
    return out[:, :l]


def cudnn_takes(head_dim: int, dtype: str) -> bool:
    """Whether cuDNN is installed and has kernels for heads of this width and dtype."""
    if dtype not in _CUDNN_DTYPES:
        return False
    like = jax.ShapeDtypeStruct((1, 8, 1, head_dim), dtype)
    try:
        jax.eval_shape(partial(attend, implementation="cudnn"), like, like, like)
    except (RuntimeError, NotImplementedError, ValueError):
        return False
    return True
