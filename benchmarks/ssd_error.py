# SPDX-License-Identifier: Apache-2.0
"""Random inputs of the SSD operator, and its error against the recurrent form."""

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.common import DTYPES, precision, relative_error
from trm_jax.ops.ssd import mosaic_refuses, ssd

HEADS, CHANNELS, STATE = 16, 64, 128  # of the hybrids: h, p, n
NAMES = ("x", "dt", "A", "B", "C", "initial_state")

# As a share of the largest value; float32 products may use TF32, with 10 bits.
TOLERANCE = {"bfloat16": 3e-2, "float32": 1e-2, "float32_highest": 1e-4}


class Sizes(NamedTuple):
    """Batch, length, groups; the rest is as in the hybrids."""

    b: int
    l: int
    g: int = 1


def kernels() -> list[str]:
    """The forms of the operator that are kernels and run here in bfloat16."""
    refused = mosaic_refuses(CHANNELS, STATE, 64, jnp.dtype("bfloat16"))
    return ["pallas", "mosaic"] if is_hopper() and not refused else ["pallas"]


def is_hopper() -> bool:
    """Whether the device is an H100 or H200."""
    return getattr(jax.devices()[0], "compute_capability", None) == "9.0"


def others() -> list[str]:
    """The forms of other libraries that are installed: jax-linear-attention's "jla"."""
    return [] if importlib.util.find_spec("jla") is None else ["jla"]


def random_inputs(sizes: Sizes, dtype: str, initial_state: bool = False) -> Any:
    """Random arguments of `ssd` in the ranges of a new network, and a cotangent of y.

    x, B, C and the cotangent have the dtype named in DTYPES, the rest float32.
    """
    (b, l, g), (narrow, _) = sizes, DTYPES[dtype]

    @jax.jit
    def draw(key: jax.Array) -> Any:
        keys = jax.random.split(key, 7)

        def normal(i: int, *shape: int, dtype: str = narrow) -> jax.Array:
            return jax.random.normal(keys[i], shape, dtype)

        low, high = jnp.log(1e-3), jnp.log(1e-1)
        dt = jnp.exp(
            jax.random.uniform(keys[1], (b, l, HEADS), minval=low, maxval=high)
        )
        A = -jax.random.uniform(keys[2], (HEADS,), minval=1.0, maxval=16.0)
        B, C = normal(3, b, l, g, STATE), normal(4, b, l, g, STATE)
        args = (normal(0, b, l, HEADS, CHANNELS), dt, A, B, C)
        if initial_state:
            args += (normal(6, b, HEADS, CHANNELS, STATE, dtype="float32"),)
        return args, normal(5, b, l, HEADS, CHANNELS)

    return draw(jax.random.key(0))


def forward(implementation: str, chunk_size: int) -> Callable[..., jax.Array]:
    """`(*args, cotangent) -> y`; the cotangent is not used."""

    def fn(*inputs: jax.Array) -> jax.Array:
        args, states = inputs[:5], inputs[5:-1]
        state = states[0] if states else None
        how: dict[str, Any] = {"initial_state": state, "chunk_size": chunk_size}
        if implementation == "jla":
            return _by_jla(*args, **how)
        return ssd(*args, **how, implementation=implementation)[0]

    return fn


def forward_backward(implementation: str, chunk_size: int) -> Callable[..., Any]:
    """`(*args, cotangent) -> (y, gradients of all args)`."""
    run = forward(implementation, chunk_size)

    def fn(*inputs: jax.Array) -> Any:
        *args, cotangent = inputs
        y, pullback = jax.vjp(lambda *args: run(*args, cotangent), *args)
        return y, pullback(cotangent)

    return fn


def errors(
    implementation: str,
    dtype: str,
    sizes: Sizes,
    chunk_size: int = 64,
    initial_state: bool = False,
) -> dict[str, float]:
    """Relative error of y and of every gradient.

    The oracle computes the same values in float32, token by token, with products at the
    highest precision, on the same device.
    """
    args, cotangent = random_inputs(sizes, dtype, initial_state)
    exact_y, exact_grads = _exact(dtype, sizes, initial_state)
    with precision(dtype):
        fn = jax.jit(forward_backward(implementation, chunk_size))
        y, grads = fn(*args, cotangent)
    pairs = zip(NAMES, grads, exact_grads, strict=False)  # initial_state may be absent
    found = {f"grad_{name}": relative_error(*pair) for name, *pair in pairs}
    return {"y": relative_error(y, exact_y), **found}


def within(found: dict[str, float], dtype: str = "bfloat16") -> dict[str, float]:
    """`found`. Raises ArithmeticError for NaN, or an error beyond TOLERANCE[dtype]."""
    if any(not error <= TOLERANCE[dtype] for error in found.values()):
        raise ArithmeticError(f"an error beyond {TOLERANCE[dtype]}: {found}")
    return found


def _by_jla(*args: jax.Array, initial_state: Any, **how: Any) -> jax.Array:
    """The scan of jax-linear-attention, whose states are transposed."""
    from jla.layers.ssm import mamba2_ssd

    state = None if initial_state is None else initial_state.swapaxes(-1, -2)
    y: jax.Array
    y, _ = mamba2_ssd(*args, initial_state=state, grouped_key_grads=True, **how)
    return y


@lru_cache(maxsize=1)
def _exact(dtype: str, sizes: Sizes, initial_state: bool) -> Any:
    args, cotangent = random_inputs(sizes, dtype, initial_state)
    with precision("float32_highest"):
        oracle = jax.jit(forward_backward("recurrent", 1))
        return oracle(*(v.astype(jnp.float32) for v in (*args, cotangent)))
