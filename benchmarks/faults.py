# SPDX-License-Identifier: Apache-2.0
"""Try every fault that a run should survive, and print one table.

python benchmarks/faults.py [--only R2 R4 ...] [--kills=100] [--workers=2]
                            [--out=benchmarks/results]

R1 to R14 run the tests of each fault, including slow ones; a test tries one fault, or
one place of it. R2-soak kills short runs with -9 at random moments, --kills times in
all, and compares their results with those of an uninterrupted run. Every row is written
with date, device and versions to <out>/faults.json, whose other rows are kept. The exit
code is 1 if a fault was not survived.
"""

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from functools import partial
from typing import Any, NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks.common import about_this_run
from benchmarks.whole_runs import digest

ROOT = pathlib.Path(__file__).parent.parent
SOAK = "R2-soak"
STEPS, SAVED_EVERY = 1500, 20
LATEST_S = 12.0  # a run is killed at most this long after its start
HEADER = "| | fault | tried | survived | skipped | steps lost | seconds |"


class Fault(NamedTuple):
    """A fault, and the tests that try it: their files, and words in their names."""

    title: str
    files: tuple[str, ...]
    names: str = ""
    devices: int = 2  # virtual devices


MATRIX = {
    "R1": Fault(
        "stopped at any step, resumed",
        ("runtime/resume", "runtime/resume_tasks"),
        "not kill",
    ),
    "R2": Fault("kill -9", ("runtime/resume",), "kill"),
    "R3": Fault("SIGTERM, SIGINT", ("commands/cli",), "signal"),
    "R4": Fault(
        "damaged files of a checkpoint",
        ("runtime/checkpoint_faults", "runtime/checkpoint"),
    ),
    "R5": Fault("other hosts, any step: the same batch", ("data_pipeline/loader",)),
    "R6": Fault(
        "restored on another mesh",
        ("runtime/elastic", "training/mesh", "training/puzzle_table"),
        devices=8,
    ),
    "R7": Fault("a second run: the same bits", ("training/train_step",), "bit or seed"),
    "R8": Fault(
        "loss or gradient not finite",
        ("runtime/non_finite", "runtime/skip", "runtime/trainer"),
    ),
    "R9": Fault(
        "a second writer; a dead holder of the lock",
        ("runtime/workdir_lock", "runtime/workdir_runs"),
    ),
    "R10": Fault(
        "disk full or read-only", ("runtime/checkpoint_disk", "runtime/workdir_disk")
    ),
    "R11": Fault("malformed input", ("data_pipeline",), "fuzz or bad"),
    "R12": Fault("another config; damaged records", ("runtime/workdirs",)),
    "R13": Fault(
        "a save that fails unseen",
        ("runtime/checkpoint_disk", "runtime/trainer"),
        "save",
    ),
    "R14": Fault(
        "one of several processes lost",
        ("runtime/processes", "runtime/multi_process", "runtime/checkpoint_processes"),
    ),
}


def tests_of(fault: Fault, workers: int) -> dict[str, Any]:
    """Run the tests of a fault, and count those tried, survived and skipped."""
    paths = [f"tests/{name}" for name in fault.files]
    paths = [p if (ROOT / p).is_dir() else f"{p}_test.py" for p in paths]
    with tempfile.TemporaryDirectory() as folder:
        report = pathlib.Path(folder) / "report.xml"
        command = [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-n", str(workers), f"--junitxml={report}", "-k", fault.names, *paths),
        ]
        flags = f"--xla_force_host_platform_device_count={fault.devices}"
        result = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | {"XLA_FLAGS": flags},
            capture_output=True,
            text=True,
            check=False,
        )
        if not report.exists():
            raise RuntimeError(result.stdout[-2000:] + result.stderr[-2000:])
        suite = next(ElementTree.parse(report).iter("testsuite"))
    count = {name: int(suite.get(name, 0)) for name in ("tests", "skipped")}
    bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
    tried = count["tests"] - count["skipped"]
    row = {"tried": tried, "survived": tried - bad, "skipped": count["skipped"]}
    return row | ({"failed": result.stdout[-4000:]} if bad else {})


def soak(kills: int, rng: random.Random) -> dict[str, Any]:
    """Kill runs repeatedly; each must end with the results of an uninterrupted run."""
    tries: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as base:
        whole = pathlib.Path(base) / "whole"
        fine, runs = start_run(whole).wait() == 0, 0
        expected = timeless(whole), digest(str(whole))
        while len(tries) < kills:
            runs += 1
            folder = pathlib.Path(base) / str(runs)
            killed, code = kill_to_the_end(folder, kills - len(tries), rng)
            tries += killed
            fine &= code == 0 and (timeless(folder), digest(str(folder))) == expected
            fine &= not list((folder / "checkpoints").glob("*tmp*"))
    return {
        "tried": len(tries),
        "survived": len(tries) if fine else 0,
        "skipped": 0,
        "lost": max((one["lost"] for one in tries), default=0),
        "runs": runs,
        "steps_of_a_run": STEPS,
        "saved_every": SAVED_EVERY,
        "kills": tries,
    }


def kill_to_the_end(
    folder: pathlib.Path, most: int, rng: random.Random
) -> tuple[list[dict[str, Any]], int]:
    """Kill one run up to `most` times; return the kills and its last exit code."""
    tries: list[dict[str, Any]] = []
    code = None
    while code is None:
        process = start_run(folder)
        after_s = round(rng.uniform(0, LATEST_S), 2)
        try:
            code = process.wait(after_s if len(tries) < most else None)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            started = len(records(folder / "runs.jsonl"))
            tries.append(
                {"after_s": after_s, "step": last_step(folder), "started": started}
            )
    starts = [run["from_step"] for run in records(folder / "runs.jsonl")]
    for one in tries:  # compared with the next start that reached the restore
        one["lost"] = max(0, one["step"] - starts[one.pop("started")])
    return tries, code


def start_run(folder: pathlib.Path) -> subprocess.Popen:
    """Start the smoke config with small batches, and log each step."""
    changes = {"train.steps": STEPS, "train.batch_size": 16, "train.log_every": 1}
    changes |= {"train.checkpoint_every": SAVED_EVERY, "train.eval_every": 100}
    changes |= {"eval.max_puzzles": 64, "mesh.data": 1}
    flags = (f"--config.{key}={value}" for key, value in changes.items())
    command = [sys.executable, "train.py", "--config=configs/smoke.py", *flags]
    return subprocess.Popen(
        [*command, f"--workdir={folder}"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def records(path: pathlib.Path) -> list[dict[str, Any]]:
    """The whole lines of a file of JSON objects; none if it is not there."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(True) if line.endswith("\n")]


def last_step(folder: pathlib.Path) -> int:
    """The newest step that was logged."""
    return max((r["step"] for r in records(folder / "metrics.jsonl")), default=0)


def timeless(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The logged lines without their timings."""
    lines = records(folder / "metrics.jsonl")
    timings = ("steps_per_s", "train/seconds")
    return [{k: v for k, v in line.items() if k not in timings} for line in lines]


def as_line(name: str, row: dict[str, Any]) -> str:
    """A row of the table."""
    cells = [name, row["title"], row["tried"], row["survived"], row["skipped"]]
    cells += [row.get("lost", "-"), round(row["seconds"])]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    """Try all faults, print and write rows; exit with 1 if one was not survived."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = [*MATRIX, SOAK]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", default="benchmarks/results")
    args = parser.parse_args()
    path = pathlib.Path(args.out) / "faults.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    trials = {name: partial(tests_of, MATRIX[name], args.workers) for name in MATRIX}
    trials[SOAK] = partial(soak, args.kills, random.Random(0))
    titles = {name: fault.title for name, fault in MATRIX.items()}
    titles[SOAK] = "kill -9 at random moments of whole runs"
    bad = 0
    for name in args.only:
        start = time.monotonic()
        row = {"title": titles[name], **about_this_run(), **trials[name]()}
        row["seconds"] = round(time.monotonic() - start, 1)
        bad += row["survived"] < row["tried"] or not row["tried"]
        print(as_line(name, row), row.get("failed", ""), flush=True)
        rows = json.loads(path.read_text()) if path.exists() else {}
        rows[name] = row
        rows = {name: rows[name] for name in names if name in rows}
        path.write_text(json.dumps(rows, indent=1) + "\n")
    lines = [as_line(name, row) for name, row in rows.items()]
    print(f"\neverything in {path}:\n", HEADER, f"|{'---|' * 7}", *lines, sep="\n")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
