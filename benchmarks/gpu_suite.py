# SPDX-License-Identifier: Apache-2.0
"""All measurements for a GPU in one run: step time, FLOP/s, memory, errors.

python benchmarks/gpu_suite.py [--parts ssd_errors ssd steps tasks runs]
                               [--batch=768] [--steps=10] [--out=benchmarks/results]

The results are written to <out>/gpu_suite_<device>_<date>.json, with date, device and
versions. The file is rewritten after each case; its name contains the parts if not all
were run. A case that fails is recorded with its error. The other cases still run, and
the exit code is 1. The suite also runs on a CPU (with a small --batch), so that
mistakes show before a GPU is needed.
"""

import argparse
import itertools
import json
import pathlib
import sys
from collections.abc import Iterator
from functools import partial
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax
import jax.numpy as jnp

from benchmarks import ssd, ssd_error, step, whole_runs
from benchmarks.common import (
    DTYPES,
    about_this_run,
    attempt,
    first_line,
    peaks,
    precision,
    relative_error,
)
from benchmarks.ssd_claims import claims
from benchmarks.ssd_error import Sizes
from trm_jax.model.layers import matmul
from trm_jax.ops.ssd.ssd import IMPLEMENTATIONS

MIXERS = ("mlp_t", "attention", "mamba2_mlp_t", "mamba2_attn")
Row = dict[str, Any]


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


def ssd_errors(args: argparse.Namespace) -> Iterator[tuple[Row, str]]:
    """Errors of the kernels against the oracle: y and all gradients, at batch 2."""
    cases = itertools.product(dtypes(), (97, 200), (1, 2), (False, True))
    for dtype, l, g, initial_state in cases:
        case = {"dtype": dtype, "l": l, "g": g, "initial_state": initial_state}
        judge = partial(
            ssd_error.judged, "pallas", dtype, Sizes(2, l, g), 64, initial_state
        )
        row = attempt(case, lambda judge=judge: {"errors": judge()})
        line = ", ".join(f"{key} {value}" for key, value in case.items())
        if "failed" in row:
            line += f" FAILED: {first_line(row)}"
        else:
            found = (f"{name} {error:.0e}" for name, error in row["errors"].items())
            line += f": {', '.join(found)}"
        yield row, line


def ssd_times(args: argparse.Namespace) -> Iterator[tuple[Row, str]]:
    """The rows of benchmarks/ssd.py at both lengths of the hybrids."""
    print(ssd.HEADER)
    shapes = [Sizes(args.batch, 97), Sizes(args.batch, 916)]
    how = ssd.Options(repeats=args.steps)
    for row in ssd.compare(IMPLEMENTATIONS, dtypes(), shapes, how):
        yield row, ssd.as_line(row)


def steps(args: argparse.Namespace) -> Iterator[tuple[Row, str]]:
    """Training steps in bfloat16, by network and by remat policy."""
    print(step.HEADER)
    for mixer, remat in itertools.product(MIXERS, ("none", "dots")):
        case = {"mixer": mixer, "dtype": "bfloat16", "remat": remat}
        work = partial(step.measure, batch=args.batch, steps=args.steps, **case)
        row = attempt(case | {"batch": args.batch}, work)
        if "failed" in row:
            yield row, f"{mixer:<12} {remat} FAILED: {first_line(row)}"
        else:
            yield row, step.as_line(row)


def tasks(args: argparse.Namespace) -> Iterator[tuple[Row, str]]:
    """Steps of mazes (a twelfth of the batch) and of ARC with its full table."""
    print(step.HEADER)
    parts = 12 if args.batch % 12 == 0 else 1
    sizes = {"maze_hard": (args.batch // parts, 1), "arc_agi_1": (args.batch, parts)}
    cases = itertools.product(sizes, ("attention", "mamba2_attn"), ("none", "full"))
    for name, mixer, remat in cases:
        batch, micro_batches = sizes[name]
        case = {"name": name, "mixer": mixer, "dtype": "bfloat16", "remat": remat}
        case |= {"batch": batch, "micro_batches": micro_batches}
        row = attempt(case, partial(step.measure, steps=args.steps, **case))
        if "failed" in row:
            yield row, f"{name} {mixer} {remat} FAILED: {first_line(row)}"
        else:
            yield row, step.as_line(row)


PARTS = {
    "ssd_errors": ssd_errors,
    "ssd": ssd_times,
    "steps": steps,
    "tasks": tasks,
    "runs": whole_runs.cases,
}


def dtypes() -> list[str]:
    """The dtypes that differ here: a CPU has one precision of float32 products."""
    names = list(DTYPES)
    return names if jax.default_backend() == "gpu" else names[:2]


def parse() -> argparse.Namespace:
    """Parse the options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--batch", type=ssd.positive, default=768)
    parser.add_argument("--steps", type=ssd.positive, default=10)
    parser.add_argument("--out", default="benchmarks/results")
    return parser.parse_args()


def result_path(args: argparse.Namespace, result: Row) -> pathlib.Path:
    """Where the report of this run goes."""
    words = ["gpu_suite", result["device"].replace(" ", "_").lower(), result["date"]]
    if set(args.parts) != set(PARTS):
        words += args.parts
    return pathlib.Path(args.out) / f"{'_'.join(words)}.json"


def main() -> None:
    """Measure, print and write the results; exit with 1 if a case failed."""
    args = parse()
    result: Row = about_this_run()
    path = result_path(args, result)
    path.parent.mkdir(parents=True, exist_ok=True)
    result["peaks"] = peaks()
    result["matmul_error"] = matmul_error()
    print(json.dumps(result, indent=2))
    failed = 0
    for part in args.parts:
        print(f"\n{part}")
        result[part] = []
        for row, line in PARTS[part](args):
            result[part].append(row)
            failed += "failed" in row
            print(line, flush=True)
            path.write_text(json.dumps(result, indent=2) + "\n")
    result["claims"] = claims(result.get("ssd", []))
    path.write_text(json.dumps(result, indent=2) + "\n")
    print("", *result["claims"], f"written to {path}; {failed} failed", sep="\n")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
