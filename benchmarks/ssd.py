# SPDX-License-Identifier: Apache-2.0
"""Time, memory and error of the SSD operator of Mamba-2, by implementation.

python benchmarks/ssd.py [--implementation recurrent chunked pallas mosaic]
                         [--dtype float32 bfloat16] [--shape 8x97 2x916]
                         [--chunk_size=64] [--repeats=5] [--interpret] [--json=FILE]

A shape is batch x length; the heads and the state have the sizes of the hybrids (h 16,
p 64, n 128). FLOPs are counted for the chunked form, three times as many with the
backward pass. Bytes count each input and output once. Errors are relative to the
largest value of the float32 recurrent form at batch 2. "product" is the rate of
`rows x 512 @ 512 x 2320`, the mixer's in_proj, in the same run. Peak bytes are the peak
of the process so far. "mosaic" is left out unless it is named: it takes bfloat16 and a
Hopper GPU only. So is "jla", the scan of jax-linear-attention, where it is installed.
"""

import argparse
import itertools
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax

from benchmarks import ssd_error
from benchmarks.common import (
    DTYPES,
    about_this_run,
    attempt,
    first_line,
    matmul_rate,
    precision,
)
from benchmarks.ssd_claims import claims
from benchmarks.ssd_error import CHANNELS, HEADS, STATE, Sizes
from trm_jax.ops.ssd.ssd import IMPLEMENTATIONS
from trm_jax.training.cost import state_bytes

DIRECTIONS = {
    "forward": ssd_error.forward,
    "forward+backward": ssd_error.forward_backward,
}
IN_PROJ = 2320  # columns of the mixer's first product: 2 * 1024 + 2 * 128 + 16
MAX_ROWS = 65_536  # most rows of the product that rates are compared with
ERROR_BATCH = 2
TOO_MUCH = 16 * 2**30  # a case that keeps more bytes of states is left out
CASE = ("implementation", "dtype", "b", "l", "direction")


class Options(NamedTuple):
    """How to run each case; with `interpret`, kernels are timed without CUDA, too."""

    chunk_size: int = 64
    repeats: int = 5
    interpret: bool = False


def model_flops(sizes: Sizes, chunk_size: int, direction: str) -> int:
    """FLOPs of the chunked form's products: scores per group, the rest per head."""
    per_head = 2 * chunk_size * CHANNELS + 4 * CHANNELS * STATE
    per_token = sizes.g * 2 * chunk_size * STATE + HEADS * per_head
    return sizes.b * sizes.l * per_token * (1 if direction == "forward" else 3)


def why_not(case: dict[str, Any], interpret: bool) -> str | None:
    """The reason to leave a case out of the timings, if there is one."""
    name, backend = case["implementation"], jax.default_backend()
    if name == "pallas" and backend != "gpu" and not interpret:
        return f"interpreted on {backend}, which says nothing of its speed"
    kept = 4 * case["b"] * case["l"] * HEADS * CHANNELS * STATE
    if name == "recurrent" and case["direction"] != "forward" and kept > TOO_MUCH:
        return f"keeps a state per token, {kept / 2**30:.0f} GiB of them"
    return None


def measure(case: dict[str, Any], how: Options) -> dict[str, Any]:
    """Median and fastest time of a case, with the resulting rates and the memory."""
    sizes, dtype = Sizes(case["b"], case["l"]), case["dtype"]
    with precision(dtype):
        rows = min(sizes.b * sizes.l, MAX_ROWS)
        product = matmul_rate(DTYPES[dtype][0], rows, IN_PROJ)
        args, cotangent = ssd_error.random_inputs(sizes, dtype)
        fn = DIRECTIONS[case["direction"]](case["implementation"], how.chunk_size)
        compiled = jax.jit(fn, keep_unused=True).lower(*args, cotangent).compile()
    times = []
    for _ in range(how.repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(compiled(*args, cotangent))
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:])
    results = jax.eval_shape(fn, *args, cotangent)
    moved = (
        (args, results)
        if case["direction"] == "forward"
        else (args, cotangent, results)
    )
    flops = model_flops(sizes, how.chunk_size, case["direction"])
    num_bytes = state_bytes(moved)
    return {
        "ms": 1e3 * seconds,
        "fastest_ms": 1e3 * min(times[1:]),
        "model_flops": flops,
        "model_gflop_per_s": flops / seconds / 1e9,
        "bytes": num_bytes,
        "gbyte_per_s": num_bytes / seconds / 1e9,
        "matmul_gflop_per_s": product / 1e9,
        "ratio": flops / seconds / product,
        "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
        "peak_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
    }


def compare(
    implementations: list[str], dtypes: list[str], shapes: list[Sizes], how: Options
) -> Iterator[dict[str, Any]]:
    """A row per case: timed ("ms"), left out ("left_out") or failed ("failed")."""
    for dtype, sizes, name in itertools.product(dtypes, shapes, implementations):
        case = {"implementation": name, "dtype": dtype, "b": sizes.b, "l": sizes.l}
        small = sizes._replace(b=ERROR_BATCH)
        judge = partial(ssd_error.errors, name, dtype, small, how.chunk_size)
        judged = attempt({}, lambda judge=judge: {"errors": judge()})
        for direction in DIRECTIONS:
            row = {**case, "direction": direction}
            if reason := why_not(row, how.interpret):
                row["left_out"] = reason
            else:
                row = attempt(row, partial(measure, row, how))
            row = {**judged, **row}
            if direction == "forward" and "errors" in row:
                row["errors"] = {"y": row["errors"]["y"]}
            yield row


def as_line(row: dict[str, Any]) -> str:
    """One row of the table, the errors on a line of their own."""
    implementation, dtype, b, l, direction = (row[name] for name in CASE)
    line = f"{implementation:<9} {dtype:<15} {b:>4} {l:>4} {direction:<16}"
    if "failed" in row:
        line += f" FAILED: {first_line(row)}"
    elif "left_out" in row:
        line += f" left out: {row['left_out']}"
    else:
        line += (
            f" {row['ms']:>9.2f} {row['fastest_ms']:>9.2f} "
            f"{row['model_gflop_per_s']:>8.0f} {row['matmul_gflop_per_s']:>8.0f} "
            f"{100 * row['ratio']:>4.0f} % {row['gbyte_per_s']:>7.1f} "
            f"{row['temporary_bytes'] / 2**20:>9.1f}"
        )
    if "errors" in row:
        found = (f"{name} {error:.0e}" for name, error in row["errors"].items())
        line += f"\n{'errors:':>12} {', '.join(found)}"
    return line


HEADER = (
    "form      dtype              b    l direction               ms   fastest  GFLOP/s"
    "  product  ratio    GB/s  temp MiB"
)


def shape(text: str) -> Sizes:
    """`8x97` as Sizes(8, 97)."""
    parts = text.split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r} is not BATCHxLENGTH, as in 8x97")
    return Sizes(*map(int, parts))


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def parse() -> argparse.Namespace:
    """Parse the options; the defaults depend on the device."""
    gpu = jax.default_backend() == "gpu"
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    default = [name for name in IMPLEMENTATIONS if name != "mosaic"]
    parser.add_argument(
        "--implementation",
        nargs="+",
        choices=[*IMPLEMENTATIONS, *ssd_error.others()],
        default=default,
    )
    dtypes = list(DTYPES) if gpu else ["float32"]
    parser.add_argument("--dtype", nargs="+", choices=DTYPES, default=dtypes)
    shapes = [Sizes(768, 97), Sizes(768, 916)] if gpu else [Sizes(8, 97), Sizes(2, 916)]
    parser.add_argument("--shape", nargs="+", type=shape, default=shapes)
    parser.add_argument("--chunk_size", type=positive, default=64)
    parser.add_argument("--repeats", type=positive, default=20 if gpu else 5)
    parser.add_argument(
        "--interpret", action="store_true", help="time the kernels off CUDA too"
    )
    parser.add_argument("--json", help="also write the report to this file")
    args = parser.parse_args()
    if "pallas" in args.implementation and args.chunk_size & (args.chunk_size - 1):
        parser.error(f"pallas takes powers of two, not --chunk_size={args.chunk_size}")
    return args


def main() -> None:
    """Print the table and the claims; exit code 1 if a case failed."""
    args = parse()
    report = about_this_run()
    print(f"{report['device']}, jax {jax.__version__}\n{HEADER}")
    how = Options(args.chunk_size, args.repeats, args.interpret)
    rows = []
    for row in compare(args.implementation, args.dtype, args.shape, how):
        rows.append(row)
        print(as_line(row), flush=True)
    found = claims(rows)
    print("", *found, sep="\n")
    if args.json:
        report |= {**how._asdict(), "rows": rows, "claims": found}
        pathlib.Path(args.json).write_text(json.dumps(report, indent=2) + "\n")
    sys.exit(any("failed" in row for row in rows))


if __name__ == "__main__":
    main()
