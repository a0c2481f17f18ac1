# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: device rates, precisions, cases that fail."""

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.numpy as jnp

from trm_jax.model.layers import matmul

# Name -> dtype and precision of float32 products; None is the default of the device
# (TF32 on a GPU that has it).
DTYPES = {
    "bfloat16": ("bfloat16", None),
    "float32": ("float32", None),
    "float32_highest": ("float32", "highest"),
}


def precision(name: str) -> AbstractContextManager[Any]:
    """A context in which products are compiled with the precision of DTYPES[name]."""
    return jax.default_matmul_precision(DTYPES[name][1])


def about_this_run() -> dict[str, Any]:
    """Date, device and versions, for the head of a report."""
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": jax.devices()[0].device_kind,
        "versions": {"python": sys.version.split()[0], "jax": jax.__version__},
    }


def matmul_rate(dtype: str, rows: int, columns: int = 3072) -> float:
    """FLOP/s of `rows x 512 @ 512 x columns`; the widest in the network has 3072."""
    a, b = random_array(0, (rows, 512), dtype), random_array(1, (512, columns), dtype)
    product = jax.jit(
        lambda a, b: jnp.matmul(a, b, preferred_element_type=jnp.float32).astype(dtype)
    )
    work = 2 * rows * 512 * columns
    return statistics.median(_burst(lambda: product(a, b), work, 20) for _ in range(3))


def random_array(seed: int, shape: tuple[int, ...], dtype: str) -> jax.Array:
    """Normal draws. A GPU multiplies arrays of ones 12 % faster than such arrays."""
    return jax.random.normal(jax.random.key(seed), shape, dtype)


def _burst(fn: Callable[[], jax.Array], work: float, calls: int) -> float:
    """Work per second of calls that do not wait for one another."""
    fn().block_until_ready()
    start = time.perf_counter()
    jax.block_until_ready([fn() for _ in range(calls)])
    return calls * work / (time.perf_counter() - start)


def peaks(dtype: str = "bfloat16", side: int = 8192) -> dict[str, float]:
    """Measured matrix-product and copy rates of the device."""
    if jax.default_backend() == "cpu":
        side = 1024
    a = random_array(0, (side, side), dtype)
    product, copy = jax.jit(jnp.matmul), jax.jit(lambda a: a + 1)

    return {
        "matmul_flop_per_s": _burst(lambda: product(a, a), 2 * side**3, 10),
        "copy_byte_per_s": _burst(lambda: copy(a), 2 * a.nbytes, 10),
    }


def relative_error(found: jax.Array, exact: jax.Array) -> float:
    """Largest difference, as a share of the largest exact value."""
    difference = jnp.abs(found.astype(jnp.float32) - exact.astype(jnp.float32)).max()
    return float(difference / jnp.abs(exact).max())


def matmul_error() -> dict[str, float]:
    """Largest relative error of the network's product and gradients against float32."""
    keys = jax.random.split(jax.random.key(0), 2)
    a, b = (jax.random.normal(k, (512, 512), jnp.bfloat16) for k in keys)

    def loss(fn: Any, a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.square(fn(a, b).astype(jnp.float32)).sum()

    wide = [x.astype(jnp.float32) for x in (a, b)]
    with precision("float32_highest"):
        exact = jnp.matmul(*wide)
        exact_grads = jax.grad(loss, argnums=(1, 2))(jnp.matmul, *wide)
    grads = jax.grad(loss, argnums=(1, 2))(matmul, a, b)
    return {
        "product": relative_error(matmul(a, b), exact),
        "grad_a": relative_error(grads[0], exact_grads[0]),
        "grad_b": relative_error(grads[1], exact_grads[1]),
    }


def attempt(case: dict[str, Any], fn: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """`case` with the results of `fn`, or with the message of its error as "failed"."""
    try:
        return {**case, **fn()}
    except Exception as error:  # noqa: BLE001 - one case must not stop the others
        return {**case, "failed": f"{type(error).__name__}: {error}"[:2000]}
    finally:
        gc.collect()


def printed(command: list[Any], timeout: float, **how: Any) -> str:
    """What a command prints; `how` goes to subprocess.run.

    Raises RuntimeError if it fails, and TimeoutExpired if it takes too long.
    """
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=timeout, **how
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return done.stdout.strip()


def first_line(row: dict[str, Any]) -> str:
    """The first line of the message of a failed row."""
    return row["failed"].splitlines()[0][:200]
