# SPDX-License-Identifier: Apache-2.0
"""The gated unit silu(gate) * up, and a kernel that fuses it with its product."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from trm_jax.ops.devices import on_each_device
from trm_jax.ops.gated_mosaic import gated, kernel_refuses
from trm_jax.types import MATMUL

Pair = tuple[Array, Array]
Kept = tuple[Pair, Array]


def swiglu(gate_up: Float[Array, "..."], axis: int = -1) -> Float[Array, "..."]:
    """silu(gate) * up, where gate and up are the two halves along `axis`."""
    gate, up = jnp.split(gate_up, 2, axis)
    return jax.nn.silu(gate) * up


def gated_product(
    x: Float[Array, "i j"],
    gate_up: Float[Array, "k twice_n"],
    *,
    over_rows: bool = False,
) -> Float[Array, "m n"]:
    """silu(x gate) * (x up), or silu(gate^T x) * (up^T x) with `over_rows`.

    `gate_up` holds both weights side by side; the result has their width as its last
    axis, or as its first one. A kernel for an H100 or H200 computes it, which has not
    run on a GPU yet. It writes the products only where a backward pass needs them. The
    other axis of x, if sharded over the mesh axes "data" and "fsdp" of the mesh in
    context, stays sharded. There is no forward-mode derivative.

    Raises:
      ValueError: the kernel does not take the width or the dtype.
    """
    if problem := kernel_refuses(gate_up.shape[1] // 2, x.dtype):
        raise ValueError(problem)
    return _fused(over_rows, x, gate_up)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fused(over_rows: bool, x: Array, gate_up: Array) -> Array:
    return _on_devices(x, gate_up, over_rows=over_rows, keep=False)[0]


def _forward(over_rows: bool, x: Array, gate_up: Array) -> tuple[Array, Kept]:
    inner, product = _on_devices(x, gate_up, over_rows=over_rows, keep=True)
    return inner, ((x, gate_up), checkpoint_name(product, MATMUL))


def _backward(over_rows: bool, kept: Kept, cotangent: Array) -> Pair:
    (x, gate_up), product = kept
    _, unit = jax.vjp(partial(swiglu, axis=0 if over_rows else -1), product)
    (grad,) = unit(cotangent)
    if over_rows:
        return _product(gate_up, grad, 1, 0), _product(x, grad, 1, 1)
    return _product(grad, gate_up, 1, 1), _product(x, grad, 0, 0)


_fused.defvjp(_forward, _backward)


def _product(a: Array, b: Array, a_axis: int, b_axis: int) -> Array:
    return lax.dot_general(a, b, (((a_axis,), (b_axis,)), ((), ())))


def _on_devices(
    x: Array, gate_up: Array, *, over_rows: bool, keep: bool
) -> tuple[Array, ...]:
    fn, axis = partial(gated, over_rows=over_rows, keep=keep), int(over_rows)
    args, axes = (x, gate_up), (axis, None)
    return on_each_device(fn, args, batch_axes=axes, out_axis=axis)
