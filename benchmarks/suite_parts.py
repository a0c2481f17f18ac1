# SPDX-License-Identifier: Apache-2.0
"""The parts of benchmarks/gpu_suite.py: what each of them measures."""

import argparse
import importlib.util
import itertools
import json
import pathlib
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from benchmarks import (
    attention,
    numerics,
    refill,
    short_training,
    ssd,
    ssd_error,
    step,
    whole_runs,
)
from benchmarks.common import attempt, printed
from benchmarks.ssd_error import Sizes

MIXERS = ("mlp_t", "attention", "mamba2_mlp_t", "mamba2_attn")
TORCH_STEP = pathlib.Path(__file__).with_name("torch_step.py")
TRAINING_S = 180.0  # of updates, at most
OVERHEAD_S = 60.0  # of a training: to compile, to make puzzles, to evaluate and to save
LAST_S = 10.0  # in which a training that is stopped evaluates and saves
FEW = 8  # a smaller batch means that the suite only has to run

Row = dict[str, Any]
Lines = Iterable[tuple[Row, str]]


class Suite(NamedTuple):
    """What a part knows."""

    args: argparse.Namespace
    result: Row  # of the parts before
    left: Callable[[], float]  # seconds in which the part must end


class Case(NamedTuple):
    """Some rows of the results, which are not measured yet."""

    about: Row
    work: Callable[[], Lines]  # rows with the lines to print


def single(
    about: Row, work: Callable[[], Row], line: Callable[[Row], str] = json.dumps
) -> Case:
    """A case of one row. A process that did not end in time is left out."""

    def in_time() -> Row:
        try:
            return work()
        except subprocess.TimeoutExpired:
            return {"left_out": "the process did not end in time"}

    def rows() -> Lines:
        row = attempt(about, in_time)
        if not {"failed", "left_out"} & set(row):
            return [(row, line(row))]
        words = ", ".join(f"{key} {value}" for key, value in about.items())
        why = f" left out: {row['left_out']}" if "left_out" in row else ""
        return [(row, words + why)]

    return Case(about, rows)


def errors(suite: Suite) -> Iterator[Case]:
    """Errors of kernels, each with a tolerance."""
    for about, judge in numerics.cases():
        yield single(about, judge, numerics.as_line)


def steps(suite: Suite) -> Iterator[Case]:
    """Training steps in bfloat16 by network, without rematerialisation."""
    print(step.HEADER)
    args = suite.args
    peak = suite.result["peaks"].get("matmul_flop_per_s")
    cases = [(mixer, False) for mixer in MIXERS]
    if numerics.fuses():
        cases += [(mixer, True) for mixer in ("mlp_t", "attention", "mamba2_attn")]
    for mixer, mosaic in cases:
        how = {"mixer": mixer, "dtype": "bfloat16", "remat": "none", "mosaic": mosaic}
        how["batch"] = args.batch

        def work(how: Row = how) -> Row:
            row = step.measure(steps=args.steps, **how)
            if peak:
                row["share_of_peak"] = 1e9 * row["model_gflop_per_s"] / peak
            return row

        yield single(how, work, step.as_line)


def in_torch(suite: Suite) -> Iterator[Case]:
    """The same step in PyTorch, in a process of its own."""
    if importlib.util.find_spec("torch") is None:
        yield single({}, lambda: {"left_out": "PyTorch is not installed"})
        return
    for mixer, compiled in itertools.product(("mlp_t", "attention"), (False, True)):
        about = {"mixer": mixer, "batch": suite.args.batch, "compiled": compiled}
        flags = [f"--batch={suite.args.batch}", f"--steps={suite.args.steps}", "--json"]
        flags += ["--mixer", mixer, *(["--compile"] if compiled else [])]
        work = partial(torch_step, flags, suite.left)
        yield single(about, work)


def torch_step(flags: list[str], left: Callable[[], float]) -> Row:
    """What benchmarks/torch_step.py prints, and its numbers.

    Raises RuntimeError if it fails, and TimeoutExpired if it takes too long.
    """
    output = printed([sys.executable, TORCH_STEP, *flags], left())
    *lines, numbers = output.splitlines()
    return {"printed": "\n".join(lines), **json.loads(numbers)}


def attention_times(suite: Suite) -> Iterator[Case]:
    """The rows of benchmarks/attention.py at both lengths of the tasks."""
    print(attention.HEADER)
    for sizes, name in itertools.product(both(suite), attention.IMPLEMENTATIONS):
        about = {"implementation": name, "b": sizes.b, "l": sizes.l}
        yield Case(about, partial(attention.compare, [name], [sizes], suite.args.steps))


def ssd_times(suite: Suite) -> Iterator[Case]:
    """The rows of benchmarks/ssd.py in bfloat16 at both lengths of the hybrids."""
    print(ssd.HEADER)
    how = ssd.Options(repeats=suite.args.steps)
    names = ["chunked", *ssd_error.kernels(), *ssd_error.others()]
    for sizes, name in itertools.product(both(suite), names):

        def work(sizes: Sizes = sizes, name: str = name) -> Lines:
            for row in ssd.compare([name], ["bfloat16"], [sizes], how):
                yield row, ssd.as_line(row)

        yield Case({"implementation": name, "b": sizes.b, "l": sizes.l}, work)


def both(suite: Suite) -> list[Sizes]:
    """The sizes of Sudoku and, with a sixth of the batch, of mazes and ARC."""
    return [Sizes(suite.args.batch, 97), Sizes(-(-suite.args.batch // 6), 916)]


def refilled(suite: Suite) -> Iterator[Case]:
    """Puzzles per second of an evaluation, with refill and without."""
    sizes = {"puzzles": 1024, "rounds": 3, "batch_size": 64}
    if suite.args.batch < FEW:
        sizes = {"puzzles": 8, "rounds": 1, "batch_size": 4}
    settings = {"weights": "sudoku_6x6", "probability": 0.97, **sizes}
    work = partial(refill.measured, argparse.Namespace(**settings))
    yield single(settings, work, lambda row: json.dumps(row["puzzles_per_s"]))


def tasks(suite: Suite) -> Iterator[Case]:
    """Steps of mazes (a twelfth of the batch) and of ARC with its full table."""
    print(step.HEADER)
    args = suite.args
    parts = 12 if args.batch % 12 == 0 else 1
    sizes = {"maze_hard": (args.batch // parts, 1), "arc_agi_1": (args.batch, parts)}
    for name, mixer in itertools.product(sizes, ("attention", "mamba2_attn")):
        batch, micro_batches = sizes[name]
        how = {"name": name, "mixer": mixer, "dtype": "bfloat16", "remat": "none"}
        how |= {"batch": batch, "micro_batches": micro_batches}
        yield single(how, partial(step.measure, steps=args.steps, **how), step.as_line)


def training(suite: Suite) -> Iterator[Case]:
    """A training that takes what is left, by the time of the measured step."""
    batch = suite.args.batch
    few = {"train_puzzles": 16, "test_puzzles": 4} if batch < FEW else {}

    def is_late() -> bool:
        return suite.left() < LAST_S

    def work() -> Row:
        updates = 2 if few else num_updates(suite)
        found = short_training.measure(updates, batch, is_late, **few)
        return {"updates": updates, **found}

    yield single({"batch": batch}, work, lambda row: json.dumps(row["curve"][-1:]))


def num_updates(suite: Suite) -> int:
    """How many updates of MLP-t fit into what is left, or into TRAINING_S."""
    ms = ms_per_step(suite)
    return max(2, int(1e3 * min(TRAINING_S, suite.left() - OVERHEAD_S) / ms))


def ms_per_step(suite: Suite) -> float:
    """The time of a step with MLP-t: from the part "steps", or measured now."""
    for row in suite.result.get("steps", []):
        if row["mixer"] == "mlp_t" and not row["mosaic"] and "ms_per_step" in row:
            return row["ms_per_step"]
    return step.measure("mlp_t", "bfloat16", suite.args.batch, 3)["ms_per_step"]


def whole(suite: Suite) -> Iterator[Case]:
    """Short runs of benchmarks/whole_runs.py."""
    for network in whole_runs.NETWORKS:
        work = partial(whole_runs.compare, network, suite.left)
        yield single({"network": network}, work)


PARTS: dict[str, Callable[[Suite], Iterator[Case]]] = {
    "numerics": errors,
    "steps": steps,
    "torch": in_torch,
    "ssd": ssd_times,
    "attention": attention_times,
    "refill": refilled,
    "tasks": tasks,
    "training": training,
    "runs": whole,
}
