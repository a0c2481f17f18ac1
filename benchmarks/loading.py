# SPDX-License-Identifier: Apache-2.0
"""Speed of the loader, and how long training waits for it.

python benchmarks/loading.py [--sudoku=train.csv] [--maze=train.csv.gz] [--arc=FOLDER]
                             [--batches=100] [--step_ms=100]
                             [--run smoke demo] [--csv train.csv test.csv]
                             [--json=FILE]

For each data set: augmented examples per second of one core at batch 768, and the share
of a step that a loop waits for its next batch if a device computes for --step_ms after
each (here the loop sleeps, as a host does while a GPU works). For each config of --run:
the same share in 200 steps of training on this machine, without its first 20 steps.
For the files of --csv: the cost of choosing 1,000 Sudokus of the first file, in a first
and a second start.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.common import attempt, first_line
from data_pipeline import loader, tasks
from data_pipeline.loader import Batch

BATCH = 768
STEPS, WARM_UP = 200, 20  # of a run: all, and those that are not counted

START = """
import json, resource, sys, time
from data_pipeline import tasks
data = {"train": sys.argv[1], "test": sys.argv[2], "train_puzzles": 1000}
print(json.dumps(tasks.load(data).identity["train"]["sha256"]["inputs"]))
used = resource.getrusage(resource.RUSAGE_SELF)
cpu = round(used.ru_utime + used.ru_stime, 2)
print(json.dumps({"cpu_s": cpu, "peak_mib": used.ru_maxrss // 1024}))
"""

Loader = Callable[[int], Batch]
Batches = Callable[[Loader, int, int], Iterator[Batch]]


class Waiting:
    """Batches of a loop, with the time that it takes and that it waits for them."""

    def __init__(self, batches: Batches, warm_up: int) -> None:
        self._batches, self._warm_up = batches, warm_up
        self.waited = self.total = 0.0
        self.count = 0

    def __call__(self, load: Loader, first: int, last: int) -> Iterator[Batch]:
        """The batches, measured from number `warm_up` on."""
        stream, began = self._batches(load, first, last), 0.0
        for k in range(last - first):
            start = time.perf_counter()
            batch = next(stream)
            now = time.perf_counter()
            if k == self._warm_up:
                began = start
            if k >= self._warm_up:
                self.waited += now - start
                self.count += 1
            yield batch
            self.total = time.perf_counter() - began

    def row(self) -> dict[str, float]:
        """The milliseconds of a step, and the share of them that was waiting."""
        each = 1000 * self.total / self.count
        share = 100 * self.waited / self.total
        return {"ms_per_step": round(each, 2), "waiting_percent": round(share, 3)}


def data_sets(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """config.data of each data set whose files are there."""
    generated = {"source": "generator", "train_puzzles": 64, "test_puzzles": 1}
    sudoku = {"source": "csv", "train": args.sudoku, "test": args.sudoku}
    maze = {"task": "maze", "train": args.maze, "test": args.maze}
    arc = {"task": "arc", "source": "json", "train": args.arc, "num_augmentations": 100}
    found = {"sudoku": {"num_augmentations": 1000}}
    found["sudoku"] |= sudoku if args.sudoku else generated
    if args.maze:
        found["maze"] = maze | {"num_augmentations": 7}
    if args.arc:
        found["arc"] = arc
    return found


def measure(data: dict[str, Any], batches: int, step_s: float) -> dict[str, Any]:
    """Examples per second of one core, and the share of waiting beside a device."""
    found = tasks.load(data)
    load = loader.TrainLoader(
        found.train, batch_size=BATCH, seed=0, variants=found.train_variants
    )
    seconds = []
    for k in range(batches):
        start = time.process_time()
        load(k)
        seconds.append(time.process_time() - start)
    waiting = Waiting(loader.prefetched, warm_up=2)
    for _ in waiting(load, 0, 2 + batches // 2):
        time.sleep(step_s)
    return {
        "median_examples_per_s": round(BATCH / statistics.median(seconds)),
        "best_examples_per_s": round(BATCH / min(seconds)),
        **waiting.row(),
    }


def run(name: str) -> dict[str, Any]:
    """The share of waiting in a short run of a shipped config."""
    import trm_jax

    waiting, own = Waiting(loader.prefetched, WARM_UP), loader.prefetched
    config = trm_jax.get_config(name)
    config.train.update(steps=STEPS, eval_every=0, checkpoint_every=STEPS)
    config.eval.max_puzzles = 1
    loader.prefetched = waiting
    try:
        with tempfile.TemporaryDirectory() as folder:
            trm_jax.train(config, folder)
    finally:
        loader.prefetched = own
    return {"batch": config.train.batch_size, **waiting.row()}


def starts(files: list[str]) -> dict[str, Any]:
    """CPU seconds and peak memory of two starts; both must choose the same puzzles."""
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in ("first", "second"):
            done = subprocess.run(
                [sys.executable, "-c", START, *files],
                cwd=ROOT,
                env={**os.environ, "XDG_CACHE_HOME": cache},
                check=True,
                stdout=subprocess.PIPE,
                text=True,
            )
            digest, cost = map(json.loads, done.stdout.splitlines())
            found[name] = {"sha256": digest, **cost}
    if found["first"]["sha256"] != found["second"]["sha256"]:
        raise RuntimeError(f"the starts chose different puzzles: {found}")
    return found


def main() -> None:
    """Print a line per data set and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sudoku", default="")
    parser.add_argument("--maze", default="")
    parser.add_argument("--arc", default="")
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--step_ms", type=float, default=100.0)
    parser.add_argument("--run", nargs="*", default=[])
    parser.add_argument("--csv", nargs=2, default=[], type=os.path.abspath)
    parser.add_argument("--json", type=pathlib.Path)
    args = parser.parse_args()
    step_s, rows = args.step_ms / 1000, []
    cases: list[tuple[dict[str, str], Callable[[], dict[str, Any]]]] = [
        ({"data": name}, partial(measure, data, args.batches, step_s))
        for name, data in data_sets(args).items()
    ]
    cases += [({"run": name}, partial(run, name)) for name in args.run]
    if args.csv:
        cases.append(({"csv": args.csv[0]}, partial(starts, args.csv)))
    for case, fn in cases:
        rows.append(attempt(case, fn))
        print(first_line(rows[-1]) if "failed" in rows[-1] else json.dumps(rows[-1]))
    if args.json:
        args.json.write_text(json.dumps({"benchmark": "loading", "rows": rows}) + "\n")


if __name__ == "__main__":
    main()
