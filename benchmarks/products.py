# SPDX-License-Identifier: Apache-2.0
"""Time of the network's products on this processor, with bfloat16 results in two ways.

python benchmarks/products.py [--repeats=30]

trm_jax/model/layers.py chooses between the two by the instruction set: a float32 result
that is then rounded, or a bfloat16 result. All forms alternate. Each time is the median
CPU time of the repeats, summed over the threads.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import jax
import jax.numpy as jnp

from benchmarks.common import random_array
from trm_jax.inspect.sweep_results import processor
from trm_jax.model.layers import has_avx512

SHAPES = ((776, 512, 3072), (776, 1536, 512), (4096, 97, 512))  # rows, sum, columns
FORMS = {
    "float32": ("float32", "float32"),
    "bfloat16, float32 result": ("bfloat16", "float32"),
    "bfloat16, bfloat16 result": ("bfloat16", "bfloat16"),
}


def times(shape: tuple[int, int, int], repeats: int) -> dict[str, float]:
    """Median CPU time of each form, in ms."""
    rows, terms, columns = shape
    calls, found = {}, {name: list[float]() for name in FORMS}
    for name, (dtype, result) in FORMS.items():
        args = (
            random_array(0, (rows, terms), dtype),
            random_array(1, (terms, columns), dtype),
        )

        def product(a: jax.Array, b: jax.Array, result: str = result) -> jax.Array:
            return jnp.matmul(a, b, preferred_element_type=result).astype(a.dtype)

        calls[name] = jax.jit(product), args
    for turn in range(repeats + 1):
        for name, (fn, args) in calls.items():
            start = time.process_time()
            jax.block_until_ready(fn(*args))
            if turn:  # the first one compiles
                found[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(each) for name, each in found.items()}


def main() -> None:
    """Print a line per shape."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=30)
    args = parser.parse_args()
    devices = [device.device_kind for device in jax.devices()]
    print(
        f"{processor(devices)}; AVX-512: {has_avx512()}; CPU ms of {', '.join(FORMS)}"
    )
    for shape in SHAPES:
        found = times(shape, args.repeats)
        size = " x ".join(map(str, shape))
        print(f"{size:<18} " + " ".join(f"{ms:>8.2f}" for ms in found.values()))


if __name__ == "__main__":
    main()
