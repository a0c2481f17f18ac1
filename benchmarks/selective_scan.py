# SPDX-License-Identifier: Apache-2.0
"""The scan of Mamba-1 beside that of Mamba-2: time forward and backward, and memory.

python benchmarks/selective_scan.py [--batch=8] [--lengths 97 916]

Both scans have 1,024 channels (d_model 512): Mamba-1 with 16 state dimensions per
channel, Mamba-2 with 16 heads of 64 and 128 state dimensions, in chunks of 64. A time
is the median of 5 calls. The last column is the time over that of Mamba-2.
"""

import argparse
import pathlib
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks.common import about_this_run
from trm_jax.ops.selective_scan import selective_scan
from trm_jax.ops.ssd import ssd

CHANNELS, CALLS = 1024, 5
CHUNKS = {"loop": (8, 16, 32), "associative": (8, 16, 32)}


def cases(b: int, l: int) -> Iterator[tuple[str, Any, tuple[jax.Array, ...]]]:
    """Name, function and arguments of each form; Mamba-2 comes first."""
    normal = partial(jax.random.normal, dtype=jnp.float32)
    keys = iter(jax.random.split(jax.random.key(0), 9))
    steps = 0.1 * jax.random.uniform(next(keys), (b, l, CHANNELS))
    u = normal(next(keys), (b, l, CHANNELS))
    heads, groups = (b, l, 16, 64), (b, l, 1, 128)
    B, C = normal(next(keys), groups), normal(next(keys), groups)
    args = u.reshape(heads), steps[..., :16], -jnp.ones(16), B, C
    yield "mamba2 chunked 64", partial(ssd, implementation="chunked"), args
    A = -jnp.broadcast_to(jnp.arange(1.0, 17), (CHANNELS, 16))
    B, C = normal(next(keys), (b, l, 16)), normal(next(keys), (b, l, 16))
    for form, sizes in CHUNKS.items():
        for q in sizes:
            scan = partial(selective_scan, implementation=form, chunk_size=q)
            yield f"mamba1 {form} {q}", scan, (u, steps, A, B, C)


def measure(scan: Any, args: tuple[jax.Array, ...]) -> tuple[float, int]:
    """Seconds of values and gradients of all arguments, and bytes of temporaries."""

    def loss(*args: jax.Array) -> jax.Array:
        return (scan(*args)[0] ** 2).sum()

    fn = jax.jit(jax.value_and_grad(loss, argnums=tuple(range(5))))
    compiled = fn.lower(*args).compile()
    jax.block_until_ready(compiled(*args))
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        times.append(time.perf_counter() - start)
    return statistics.median(times), compiled.memory_analysis().temp_size_in_bytes


def main() -> None:
    """Measure all forms at all lengths, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lengths", type=int, nargs="+", default=[97, 916])
    args = parser.parse_args()
    print(about_this_run(), f"batch {args.batch}")
    print("\n| length | scan | ms | MiB | times Mamba-2 |\n|---|---|---|---|---|")
    for length in args.lengths:
        first = None
        for name, scan, arrays in cases(args.batch, length):
            seconds, size = measure(scan, arrays)
            first = first or seconds
            cells = f"{1e3 * seconds:.1f} | {size / 2**20:.0f} | {seconds / first:.2f}"
            print(f"| {length} | {name} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
