# SPDX-License-Identifier: Apache-2.0
"""All measurements for a GPU in one run of at most 8 minutes, the most telling first.

python benchmarks/gpu_suite.py [--budget_s=480] [--parts numerics steps torch attention
                               ssd tasks training runs] [--batch=768] [--steps=10]
                               [--out=benchmarks/results]

numerics   errors of the scan's kernels against its oracle
steps      training steps by network, on Hopper also with the kernel of the gated units:
           time, memory, share of the measured peak
torch      the same step in PyTorch, where it is installed
attention  attention by implementation, with errors
ssd        the scan by implementation
tasks      steps of mazes, and of ARC with its full puzzle table
training   three minutes of training on 9x9 Sudokus, with the curve
runs       short runs that must end with the same bits

The results are written to <out>/gpu_suite_<device>_<date>.json, with date, device and
versions. The file is rewritten after each case; its name contains the parts if not all
were run. No case starts after --budget_s seconds; what was left out is listed. A case
that fails is recorded with its error. The other cases still run, and the exit code is
1. The suite also runs on a CPU (with --batch=1), so that mistakes show before a GPU is
needed. Of the packages of this project it needs jax, flax, optax, orbax-checkpoint,
chex, ml-collections, jaxtyping, safetensors and numpy.
"""

import argparse
import importlib.util
import itertools
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

# Other processes of the suite need some of the GPU's memory, too.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks import attention, ssd, ssd_error, step, whole_runs
from benchmarks.common import (
    about_this_run,
    attempt,
    first_line,
    matmul_error,
    peaks,
)
from benchmarks.short_training import measure as short_training
from benchmarks.ssd_claims import claims
from benchmarks.ssd_error import Sizes

MIXERS = ("mlp_t", "attention", "mamba2_mlp_t", "mamba2_attn")
Row = dict[str, Any]
TRAINING_S = 150  # of updates; evaluations and compilation come on top


def numerics(args: argparse.Namespace, result: Row) -> Iterator[tuple[Row, str]]:
    """Errors of the scan's kernels against the oracle: y and all gradients."""
    forms = [(name, "bfloat16") for name in ssd_error.kernels()] + [
        ("pallas", "float32")
    ]
    for (name, dtype), g in itertools.product(forms, (1, 2)):
        sizes, with_state = Sizes(2, 97 if g == 1 else 200, g), g == 2
        case = {"form": name, "dtype": dtype, "l": sizes.l, "g": g}
        case["initial_state"] = with_state
        judge = partial(ssd_error.judged, name, dtype, sizes, 64, with_state)
        row = attempt(case, lambda judge=judge: {"errors": judge()})
        line = ", ".join(f"{key} {value}" for key, value in case.items())
        found = row.get("errors", {}).items()
        yield row, f"{line}: " + ", ".join(f"{k} {error:.0e}" for k, error in found)


def steps(args: argparse.Namespace, result: Row) -> Iterator[tuple[Row, str]]:
    """Training steps in bfloat16 by network, without rematerialisation."""
    print(step.HEADER)
    peak = result["peaks"]["matmul_flop_per_s"]
    cases = [(mixer, False) for mixer in MIXERS]
    if "mosaic" in ssd_error.kernels():
        cases += [(mixer, True) for mixer in ("mlp_t", "attention")]
    for mixer, fused in cases:
        case = {"mixer": mixer, "dtype": "bfloat16", "remat": "none", "fused": fused}
        work = partial(step.measure, batch=args.batch, steps=args.steps, **case)
        row = attempt(case | {"batch": args.batch}, work)
        if "failed" not in row:
            row["share_of_peak"] = 1e9 * row["model_gflop_per_s"] / peak
        yield row, step.as_line(row) if "failed" not in row else mixer


def in_torch(args: argparse.Namespace, result: Row) -> Iterator[tuple[Row, str]]:
    """The same step in PyTorch, in a process of its own."""
    if importlib.util.find_spec("torch") is None:
        yield {"left_out": "PyTorch is not installed"}, "PyTorch is not installed"
        return
    script = pathlib.Path(__file__).with_name("torch_step.py")
    for mixer, compiled in itertools.product(("mlp_t", "attention"), (False, True)):
        flags = [f"--batch={args.batch}", f"--steps={args.steps}", "--mixer", mixer]
        command = [sys.executable, script, *flags, *(["--compile"] if compiled else [])]
        case = {"mixer": mixer, "batch": args.batch, "compiled": compiled}
        row = attempt(case, partial(printed, command))
        yield row, f"{mixer} compiled {compiled}: {row.get('printed')}"


def printed(command: list[Any]) -> dict[str, str]:
    """What a command prints. Raises RuntimeError if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return {"printed": done.stdout.strip()}


def attention_times(args: argparse.Namespace, result: Row) -> Iterator[tuple[Row, str]]:
    """The rows of benchmarks/attention.py at both lengths of the tasks."""
    print(attention.HEADER)
    shapes = [Sizes(args.batch, 97), Sizes(-(-args.batch // 6), 916)]
    yield from attention.compare(attention.IMPLEMENTATIONS, shapes, args.steps)


def ssd_times(args: argparse.Namespace, result: Row) -> Iterator[tuple[Row, str]]:
    """The rows of benchmarks/ssd.py in bfloat16 at both lengths of the hybrids."""
    print(ssd.HEADER)
    shapes = [Sizes(args.batch, 97), Sizes(-(-args.batch // 6), 916)]
    how = ssd.Options(repeats=args.steps)
    for row in ssd.compare(
        ["chunked", *ssd_error.kernels()], ["bfloat16"], shapes, how
    ):
        yield row, ssd.as_line(row)


def tasks(args: argparse.Namespace, result: Row) -> Iterator[tuple[Row, str]]:
    """Steps of mazes (a twelfth of the batch) and of ARC with its full table."""
    print(step.HEADER)
    parts = 12 if args.batch % 12 == 0 else 1
    sizes = {"maze_hard": (args.batch // parts, 1), "arc_agi_1": (args.batch, parts)}
    for name, mixer in itertools.product(sizes, ("attention", "mamba2_attn")):
        batch, micro_batches = sizes[name]
        case = {"name": name, "mixer": mixer, "dtype": "bfloat16", "remat": "none"}
        case |= {"batch": batch, "micro_batches": micro_batches}
        row = attempt(case, partial(step.measure, steps=args.steps, **case))
        yield row, step.as_line(row) if "failed" not in row else f"{name} {mixer}"


def training(args: argparse.Namespace, result: Row) -> Iterator[tuple[Row, str]]:
    """A training that takes three minutes by the time of the measured step."""
    ms = [row["ms_per_step"] for row in result.get("steps", []) if "ms_per_step" in row]
    updates = max(2, int(1e3 * TRAINING_S / ms[0])) if ms else 2
    small = {"train_puzzles": 16, "test_puzzles": 4} if args.batch < 8 else {}
    updates = 2 if small else updates
    work = partial(short_training, updates, args.batch, **small)
    row = attempt({"updates": updates}, work)
    yield row, json.dumps(row.get("curve", [None])[-1])


def whole(args: argparse.Namespace, result: Row) -> Iterator[tuple[Row, str]]:
    """Short runs of benchmarks/whole_runs.py."""
    yield from whole_runs.cases(args)


PARTS = {
    "numerics": numerics,
    "steps": steps,
    "torch": in_torch,
    "attention": attention_times,
    "ssd": ssd_times,
    "tasks": tasks,
    "training": training,
    "runs": whole,
}


def parse() -> argparse.Namespace:
    """Parse the options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--batch", type=ssd.positive, default=768)
    parser.add_argument("--steps", type=ssd.positive, default=10)
    parser.add_argument("--budget_s", type=ssd.positive, default=480)
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
    result["matmul_error"], result["left_out"] = matmul_error(), []
    print(json.dumps(result, indent=2))
    failed, start = 0, time.perf_counter()
    for part in args.parts:
        print(f"\n{part}")
        result[part] = []
        cases = PARTS[part](args, result)
        while in_time := time.perf_counter() - start < args.budget_s:
            if (case := next(cases, None)) is None:
                break
            row, line = case
            result[part].append(row)
            if "failed" in row:
                failed += 1
                line += "" if "FAILED" in line else f" FAILED: {first_line(row)}"
            print(line, flush=True)
            path.write_text(json.dumps(result, indent=2) + "\n")
        if not in_time:
            result["left_out"].append(part)
            print(f"left out, or cut short, after {args.budget_s} s")
    result["claims"] = claims(result.get("ssd", []))
    path.write_text(json.dumps(result, indent=2) + "\n")
    print("", *result["claims"], f"written to {path}; {failed} failed", sep="\n")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
