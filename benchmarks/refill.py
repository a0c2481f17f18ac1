# SPDX-License-Identifier: Apache-2.0
"""Puzzles per second of an evaluation with refill, against a fixed number of steps.

    taskset -c 0 python benchmarks/refill.py [--weights=NAME] [--puzzles=N]
                                             [--probability=P] [--rounds=N]
                                             [--batch_size=N] [--out=FILE]

Both forms solve the first test puzzles of a shipped model, in alternation, so that the
load of the machine meets both alike. The first round compiles and is not counted. The
report compares the answers with those of the fixed form under the same halting rule:
the answer of the last step, or of the first one that wants to halt with a halting
probability of at least P.
"""

import argparse
import json
import os
import statistics
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
if __name__ == "__main__":  # the part "refill" of gpu_suite.py keeps its own flags
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

import numpy as np

import trm_jax
from benchmarks.common import about_this_run
from trm_jax.evaluation import evaluate, refill, report


def main() -> None:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default="sudoku_6x6")
    parser.add_argument("--puzzles", type=int, default=1024)
    parser.add_argument("--probability", type=float, default=0.97)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--out")
    args = parser.parse_args()
    found = measured(args)
    print(json.dumps(found, indent=2))
    if args.out:
        Path(args.out).write_text(json.dumps(found, indent=2) + "\n")


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of every round, their ratio, and the scores of both forms."""
    model = trm_jax.load(args.weights)
    built = model._built
    weights = model.params, model.constants, model.table
    questions = model.task.load().test.questions(max_puzzles=args.puzzles)
    settings = {"num_steps": built.run.num_eval_steps, "seed": built.run.eval.seed}
    fixed_step = evaluate.make_eval_step(built.recipe, built.mesh, **settings)
    refilled = refill.make_refilled(
        built.recipe, built.mesh, probability=args.probability, **settings
    )
    forms = {
        "fixed": partial(evaluate.evaluate, fixed_step, mesh=built.mesh),
        "refill": partial(refill.evaluate_refilled, refilled),
    }
    seconds: dict[str, list[float]] = {name: [] for name in forms}
    outputs = {}
    for turn in range(args.rounds + 1):
        for name, form in forms.items():
            rows = questions.batches(args.batch_size)
            start = time.perf_counter()
            outputs[name] = evaluate.joined([*form(weights=weights, batches=rows)])
            if turn:
                seconds[name].append(time.perf_counter() - start)
    ratios = [f / r for f, r in zip(*seconds.values(), strict=True)]
    fixed, refilled_rows = outputs["fixed"], outputs["refill"]
    least = refill.least_logit(args.probability)
    halting = fixed._replace(wants_halt=fixed.wants_halt & (fixed.q_halt >= least))
    return {
        **about_this_run(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
        "weights": args.weights,
        "puzzles": questions.num_rows,
        "batch_size": args.batch_size,
        "supervision_steps": settings["num_steps"],
        "halting_probability": args.probability,
        "mean_steps": report.halting(halting)["mean_steps"],
        "puzzles_per_s": {
            name: questions.num_rows / statistics.median(each)
            for name, each in seconds.items()
        },
        "ratio": {
            "median": statistics.median(ratios),
            "least": min(ratios),
            "most": max(ratios),
        },
        "exact_accuracy": {
            "fixed": report.summary(fixed)["exact_accuracy"],
            "fixed_under_the_halting_rule": report.halting(halting)["exact_accuracy"],
            "refill": report.summary(refilled_rows)["exact_accuracy"],
        },
        "rows_with_other_scores": _differences(halting, refilled_rows),
    }


def _differences(fixed: Any, refilled: Any) -> dict[str, int]:
    """How many rows differ in what was recorded up to the step in which they halted."""
    first = np.where(fixed.wants_halt.any(0), fixed.wants_halt.argmax(0), -1)
    last = len(fixed.wants_halt) - 1
    steps = np.arange(last + 1)[:, None] <= np.where(first < 0, last, first)
    return {
        name: int(
            ((getattr(fixed, name) != getattr(refilled, name)) & steps).any(0).sum()
        )
        for name in evaluate.PER_STEP
    }


if __name__ == "__main__":
    main()
