# SPDX-License-Identifier: Apache-2.0
"""All measurements for a GPU in one run of at most 8 minutes, the most telling first.

python benchmarks/gpu_suite.py [--budget_s=480] [--parts numerics steps torch ssd
                               attention refill tasks training runs] [--batch=768]
                               [--steps=10] [--out=benchmarks/results]

numerics   errors of kernels, each with a tolerance: the scan's against its oracle, the
           gated units' and attention's against float32 with exact products
steps      training steps by network, on Hopper also with kernels that are used by name:
           time, memory, share of the measured peak
torch      the same step in PyTorch, where it is installed
ssd        the scan by implementation
attention  attention by implementation, with errors
refill     an evaluation of shipped weights with refill, against a fixed number of steps
tasks      steps of mazes, and of ARC with its full puzzle table
training   at most 180 s of updates on 9x9 Sudokus, with the curve
runs       short runs that must end with the same bits

The results are written to <out>/gpu_suite_<device>_<date>.json, with date, device and
versions. The file is rewritten after each case; its name contains the parts if not all
were run. A case starts only if the longest case of its part so far would still end
within --budget_s seconds (a part's first case counts as 20 s, a training as 60 s).
Parts before the training leave it 150 s, it stops when they are over, and processes are
killed. The file lists the cases that were left out. A case that fails is recorded with
its error. The other cases still run, and the exit code is 1.

The suite also runs on a CPU (with --batch=1), so that mistakes show before a GPU is
needed. Of the packages of this project it needs jax, flax, optax, orbax-checkpoint,
chex, ml-collections, jaxtyping, safetensors and numpy.
"""

import argparse
import json
import os
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any

# Other processes of the suite need some of the GPU's memory, too.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks.common import about_this_run, attempt, first_line, matmul_error, peaks
from benchmarks.ssd import positive
from benchmarks.ssd_claims import claims
from benchmarks.suite_parts import OVERHEAD_S, PARTS, Row, Suite

FIRST_S = 20.0  # of the first case of a part, before one was measured
RESERVED_S = 150.0  # for the training, by the parts before it


def parse() -> argparse.Namespace:
    """Parse the options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--batch", type=positive, default=768)
    parser.add_argument("--steps", type=positive, default=10)
    parser.add_argument("--budget_s", type=positive, default=480)
    parser.add_argument("--out", default="benchmarks/results")
    return parser.parse_args()


def result_path(args: argparse.Namespace, result: Row) -> pathlib.Path:
    """Where the report of this run goes."""
    words = ["gpu_suite", result["device"].replace(" ", "_").lower(), result["date"]]
    if set(args.parts) != set(PARTS):
        words += args.parts
    return pathlib.Path(args.out) / f"{'_'.join(words)}.json"


def run(
    args: argparse.Namespace,
    result: Row,
    save: Callable[[], Any],
    start: float,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """Measure the parts, and return how many cases failed.

    Each part adds its rows to `result`; `save` is called after each row. The budget
    began at `start`.
    """
    failed = 0
    for i, part in enumerate(args.parts):
        reserved = RESERVED_S if "training" in args.parts[i + 1 :] else 0.0
        end, longest = start + args.budget_s - reserved, 0.0
        print(f"\n{part}")
        result[part] = []
        for case in PARTS[part](Suite(args, result, lambda end=end: end - clock())):
            began = clock()
            first = OVERHEAD_S if part == "training" else FIRST_S
            if end - began < (longest or first):
                result["left_out"].append({"part": part, **case.about})
                save()
                print(f"left out: {case.about}")
                continue
            for row, line in case.work():
                result[part].append(row)
                save()
                failed += "failed" in row
                has_failed = "failed" in row and "FAILED" not in line
                message = f" FAILED: {first_line(row)}" if has_failed else ""
                print(line + message, flush=True)
            longest = max(longest, clock() - began)
    return failed


def main() -> None:
    """Measure, print and write the results; exit with 1 if a case failed."""
    start, args = time.perf_counter(), parse()
    result: Row = about_this_run()
    path = result_path(args, result)
    path.parent.mkdir(parents=True, exist_ok=True)

    def save() -> None:
        path.write_text(json.dumps(result, indent=2) + "\n")

    save()
    result |= {"peaks": attempt({}, peaks), "left_out": []}
    save()
    result["matmul_error"] = attempt({}, matmul_error)
    save()
    print(json.dumps(result, indent=2))
    failed = sum("failed" in result[name] for name in ("peaks", "matmul_error"))
    failed += run(args, result, save, start)
    result["claims"] = claims(result.get("ssd", []))
    save()
    print("", *result["claims"], f"written to {path}; {failed} failed", sep="\n")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
