# SPDX-License-Identifier: Apache-2.0
"""What there is to measure on a GPU, in one run: step time, FLOP/s, peak memory.

python benchmarks/gpu_suite.py [--batch=768] [--steps=10] [--out=benchmarks/results]

Writes <out>/gpu_suite_<device>_<date>.json with date, device and versions. Runs on a
CPU too (give a small --batch): a mistake shows before a GPU is at hand.
"""

import argparse
import gc
import json
import pathlib
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax
import jax.numpy as jnp

from benchmarks.step import HEADER, as_line, measure
from trm_jax.layers import matmul

CASES = [
    ("mlp_t", "none"),
    ("mlp_t", "dots"),
    ("attention", "none"),
    ("attention", "dots"),
]


def peaks(dtype: str = "bfloat16", side: int = 8192) -> dict[str, float]:
    """Measured matrix-product and copy rates of the device."""
    if jax.default_backend() == "cpu":
        side = 1024
    a = jnp.ones((side, side), dtype)
    product, copy = jax.jit(jnp.matmul), jax.jit(lambda a: a + 1)

    def rate(fn: Any, work: float) -> float:
        fn().block_until_ready()
        start = time.perf_counter()
        jax.block_until_ready([fn() for _ in range(10)])
        return 10 * work / (time.perf_counter() - start)

    return {
        "matmul_flop_per_s": rate(lambda: product(a, a), 2 * side**3),
        "copy_byte_per_s": rate(lambda: copy(a), 2 * a.nbytes),
    }


def matmul_error() -> dict[str, float]:
    """Largest relative error of the network's product and gradients against float32."""
    keys = jax.random.split(jax.random.key(0), 2)
    a, b = (jax.random.normal(k, (512, 512), jnp.bfloat16) for k in keys)

    def loss(fn: Any, a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.square(fn(a, b).astype(jnp.float32)).sum()

    def error(found: jax.Array, exact: jax.Array) -> float:
        difference = jnp.abs(found.astype(jnp.float32) - exact).max()
        return float(difference / jnp.abs(exact).max())

    wide = [x.astype(jnp.float32) for x in (a, b)]
    with jax.default_matmul_precision("highest"):
        exact = jnp.matmul(*wide)
        exact_grads = jax.grad(loss, argnums=(1, 2))(jnp.matmul, *wide)
    grads = jax.grad(loss, argnums=(1, 2))(matmul, a, b)
    return {
        "product": error(matmul(a, b), exact),
        "grad_a": error(grads[0], exact_grads[0]),
        "grad_b": error(grads[1], exact_grads[1]),
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=768)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", default="benchmarks/results")
    args = parser.parse_args()
    device = jax.devices()[0]
    result: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "device": device.device_kind,
        "versions": {"python": sys.version.split()[0], "jax": jax.__version__},
        "peaks": peaks(),
        "matmul_error": matmul_error(),
        "steps": [],
    }
    print(json.dumps(result, indent=2), f"\n{HEADER}")
    for mixer, remat in CASES:
        row = measure(mixer, "bfloat16", args.batch, args.steps, remat)
        result["steps"].append(row)
        print(as_line(row), flush=True)
        gc.collect()
    name = device.device_kind.replace(" ", "_").lower()
    path = pathlib.Path(args.out) / f"gpu_suite_{name}_{result['date']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
