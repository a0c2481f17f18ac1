# SPDX-License-Identifier: Apache-2.0
"""Time and error of attention by implementation, forward and with gradients.

python benchmarks/attention.py [--implementation xla cudnn] [--shape 768x97 128x916]
                               [--repeats=20]

A shape is batch x length; there are 8 heads of 64 channels in bfloat16. An error is
relative to the largest value in float32, at batch 2; a row with one above 3e-2 fails.
FLOPs are those of the two products, and three and a half times as many with the
backward pass, which computes the scores again.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import jax

from benchmarks.common import attempt, first_line, random_array, relative_error
from benchmarks.ssd import positive, shape
from benchmarks.ssd_error import Sizes, within
from trm_jax.ops.attention import IMPLEMENTATIONS, attend

HEADS, WIDTH = 8, 64
DIRECTIONS = ("forward", "forward+backward")
HEADER = "form      b    l direction               ms  TFLOP/s  errors"


def program(implementation: str, direction: str) -> Callable[..., Any]:
    """(q, k, v, cotangent) -> the output, or the output and the three gradients."""
    run = partial(attend, implementation=implementation)

    def both(*args: jax.Array) -> Any:
        out, pull = jax.vjp(run, *args[:3])
        return out, *pull(args[3])

    return both if direction != "forward" else lambda *args: (run(*args[:3]),)


def inputs(b: int, l: int, dtype: str = "bfloat16") -> list[jax.Array]:
    """q, k, v and a cotangent, the same numbers in every dtype."""
    size = (b, l, HEADS, WIDTH)
    return [random_array(i, size, "bfloat16").astype(dtype) for i in range(4)]


def errors(implementation: str, l: int) -> dict[str, float]:
    """Of the output and the gradients against float32 with exact products."""
    found = jax.jit(program(implementation, DIRECTIONS[1]))(*inputs(2, l))
    with jax.default_matmul_precision("highest"):
        exact = jax.jit(program("xla", DIRECTIONS[1]))(*inputs(2, l, "float32"))
    names = ("out", "grad_q", "grad_k", "grad_v")
    return {
        n: relative_error(*each) for n, *each in zip(names, found, exact, strict=True)
    }


def measure(case: dict[str, Any], repeats: int) -> dict[str, Any]:
    """Median time of a case."""
    args = inputs(case["b"], case["l"])
    compiled = jax.jit(program(case["implementation"], case["direction"]))
    compiled = compiled.lower(*args).compile()
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args))
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:])
    flops = 4 * case["b"] * HEADS * case["l"] ** 2 * WIDTH
    flops *= 1 if case["direction"] == "forward" else 3.5
    return {
        "ms": 1e3 * seconds,
        "tflop_per_s": flops / seconds / 1e12,
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
    }


def compare(
    implementations: Sequence[str], shapes: Sequence[Sizes], repeats: int
) -> Iterator[tuple[dict[str, Any], str]]:
    """A row per case, and its line. Without a GPU, the form for GPUs is left out.

    A row fails if an error exceeds its tolerance or is NaN.
    """
    for sizes in shapes:
        for name in implementations:
            if name == "cudnn" and jax.default_backend() != "gpu":
                yield {"implementation": name, "left_out": "no GPU"}, f"{name}: no GPU"
                continue
            judge = partial(errors, name, sizes.l)
            judged = attempt({}, lambda judge=judge: {"errors": within(judge())})
            for direction in DIRECTIONS:
                case = {"implementation": name, "b": sizes.b, "l": sizes.l}
                case |= {"direction": direction}
                row = {**judged, **attempt(case, partial(measure, case, repeats))}
                yield row, as_line(row)


def as_line(row: dict[str, Any]) -> str:
    """One row of the table."""
    head = (
        f"{row['implementation']:<6} {row['b']:>4} {row['l']:>4} {row['direction']:<16}"
    )
    if "failed" in row:
        return f"{head} FAILED: {first_line(row)}"
    errors = ", ".join(f"{name} {error:.0e}" for name, error in row["errors"].items())
    return f"{head} {row['ms']:>9.2f} {row['tflop_per_s']:>8.1f}  {errors}"


def main() -> None:
    """Print the table; exit code 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--implementation", nargs="+", choices=IMPLEMENTATIONS, default=IMPLEMENTATIONS
    )
    gpu = jax.default_backend() == "gpu"
    shapes = [Sizes(768, 97), Sizes(128, 916)] if gpu else [Sizes(8, 97), Sizes(2, 916)]
    parser.add_argument("--shape", nargs="+", type=shape, default=shapes)
    parser.add_argument("--repeats", type=positive, default=20 if gpu else 3)
    args = parser.parse_args()
    print(HEADER)
    failed = False
    for row, line in compare(args.implementation, args.shape, args.repeats):
        print(line, flush=True)
        failed |= "failed" in row
    sys.exit(failed)


if __name__ == "__main__":
    main()
