# SPDX-License-Identifier: Apache-2.0
"""What checkpoints cost a run: training time lost, digests, restarts.

python benchmarks/saving.py [--cases smoke sudoku table] [--saves=3] [--batch=8]
                            [--workdir=FOLDER] [--json=FILE]

"smoke" is configs/smoke.py. "sudoku" is configs/sudoku_extreme.py in float32, with
--batch rows. "table" is the network of smoke with ARC-AGI-1's puzzle table (1.7 GiB)
and batch 768. The stall is the time that `save` blocks the loop, plus the extra time of
the steps until the save is on the disk: the least of --saves, as a share of 1,000 steps
and one save. The restart kills train.py after a save, and takes the time from its next
start to the next step, with programs from the compilation cache. The data of "table"
are not available, so only the reading of a checkpoint is timed.
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
from functools import partial
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax

from benchmarks.common import about_this_run, attempt, first_line
from benchmarks.puzzle_table import built_for, random_rows, seconds
from configs import smoke, sudoku_extreme
from data_pipeline import tasks
from trm_jax.runtime.checkpoint import Checkpoints
from trm_jax.settings import flatten
from trm_jax.training.build import Built, build
from trm_jax.training.digest import leaf_digests
from trm_jax.types import Batch

ROOT = pathlib.Path(__file__).parent.parent
INTERVAL = 1_000  # train.checkpoint_every of configs/default.py
Row = dict[str, Any]
FEWEST, ENOUGH_S = 5, 5.0  # timed without a save: at least these steps and seconds
HEADER = (
    "case    state MiB  step ms | blocked ms  slowed ms  to disk s  digests ms  of it "
    "| stall  steps for 2 % | restart s"
)


def cpu_sized(batch: int) -> Any:
    """The paper's Sudoku recipe, for a CPU and without its data."""
    config = sudoku_extreme.get_config()
    config.data.sudoku.clues = (30, 40)
    config.data.update(source="generator", num_augmentations=0)
    config.data.update(train_puzzles=64, test_puzzles=8)
    config.model.dtype, config.rule.trm.remat = "float32", "none"
    config.train.batch_size = config.eval.batch_size = batch
    return config


def case_of(name: str, batch: int) -> tuple[Built, Batch, list[str]]:
    """The built run, a batch, and the flags of train.py for the same run, if any."""
    if name == "table":
        built = built_for(876_407, 512, 768, 1)
        return built, random_rows(built, 876_407, 768), []
    config = smoke.get_config() if name == "smoke" else cpu_sized(batch)
    built = build(config.to_dict(), tasks.spec_of(config.data).sizes)
    batch_like = built.state_like.carry.batch
    rows = jax.tree.map(lambda s: jax.numpy.ones(s.shape, s.dtype), batch_like)
    rows = rows._replace(puzzle_id=0 * rows.puzzle_id)
    file = "smoke" if name == "smoke" else "sudoku_extreme"
    flags = [f"--config={ROOT / 'configs' / file}.py"]
    if name == "sudoku":
        flags += [
            f"--config.{key}={values[key]}"
            for values in [flatten(config.to_dict())]
            for key in (
                *("data.source", "data.sudoku.clues", "data.train_puzzles"),
                *("data.test_puzzles", "model.dtype", "rule.trm.remat"),
                *("train.batch_size", "eval.batch_size"),
            )
        ]
        flags.append("--config.data.num_augmentations=0")
    return built, jax.device_put(rows, rows_shardings(built)), flags


def rows_shardings(built: Built) -> Any:
    """The sharding of each field of a batch."""
    return jax.tree.map(lambda s: s.sharding, built.state_like.carry.batch)


@partial(jax.jit, donate_argnums=0)
def with_trained_table(state: Any) -> Any:
    """Fill the puzzle table with noise: zeros would shrink to nothing on the disk."""
    table = state.puzzle_table
    noise = jax.random.normal(jax.random.key(0), table.shape, table.dtype)
    return state._replace(puzzle_table=0.02 * noise)


def measure(name: str, args: argparse.Namespace, workdir: pathlib.Path) -> Row:
    """All figures of one case."""
    built, batch, flags = case_of(name, args.batch)
    state = with_trained_table(built.init())
    nbytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    program = built.train_step.lower(state, batch).compile()

    def step() -> float:
        nonlocal state
        start = time.perf_counter()
        state = jax.block_until_ready(program(state, batch))
        return time.perf_counter() - start

    step()
    checkpoints = Checkpoints(workdir / name, keep=1)
    found = []
    for _ in range(args.saves):
        usual = []
        while len(usual) < FEWEST or sum(usual) < ENOUGH_S:
            usual.append(step())
        found.append(one_save(checkpoints, state, step, statistics.median(usual)))
    digests = min(seconds(lambda: leaf_digests(state)) for _ in range(args.saves))
    checkpoints.close()
    best = min(found, key=lambda row: row["stall_s"])
    row = {"state_bytes": nbytes, **best, "digest_s": digests, "saves": found}
    row["digest_share"] = digests / best["to_disk_s"]
    between = INTERVAL * best["step_s"]
    row["stall_share"] = best["stall_s"] / (between + best["stall_s"])
    row["steps_for_2_percent"] = best["stall_s"] / 0.02 / best["step_s"]
    if flags:
        row["restart_s"] = restart(flags, workdir / f"{name}_run")
    else:
        row["restore_s"] = restored(workdir / name, built)
    return row


def one_save(
    checkpoints: Checkpoints, state: Any, step: Any, usual: float
) -> dict[str, float]:
    """Save once while the training goes on."""
    number = int(state.step)
    start = time.perf_counter()
    checkpoints.save(state)
    blocked = time.perf_counter() - start
    del state
    steps = [step()]
    while number not in checkpoints.steps():
        checkpoints.poll()
        steps.append(step())
    to_disk = time.perf_counter() - start
    checkpoints.wait()
    slowed = sum(steps) - len(steps) * usual
    return {
        "step_s": usual,
        "blocked_s": blocked,
        "slowed_s": slowed,
        "stall_s": blocked + max(0.0, slowed),
        "to_disk_s": to_disk,
        "steps_meanwhile": len(steps),
    }


def restored(workdir: pathlib.Path, built: Built) -> float:
    """Seconds to read and check the newest checkpoint."""
    checkpoints = Checkpoints(workdir)
    taken = seconds(lambda: checkpoints.restore_newest(built.state_like))
    checkpoints.close()
    return taken


def restart(flags: list[str], workdir: pathlib.Path) -> float:
    """Seconds from the start of train.py to the first step after the saved ones."""
    every = {"log_every": 1, "checkpoint_every": 2, "eval_every": 0}
    changes = [f"--config.train.{key}={value}" for key, value in every.items()]
    command = [sys.executable, str(ROOT / "train.py"), f"--workdir={workdir}"]
    command += flags + changes
    cache = {"JAX_COMPILATION_CACHE_DIR": str(workdir.parent / "cache")}

    def run_for(steps: int) -> float:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, env=os.environ | cache, stdout=subprocess.PIPE, text=True
        )
        lowest = now = logged(workdir)
        try:
            while now < lowest + steps:
                if process.poll() is not None:
                    raise RuntimeError(f"train.py ended: {process.communicate()[0]}")
                time.sleep(0.01)
                now = logged(workdir)
                lowest = min(lowest, now)  # lines of unsaved steps are removed
            return time.perf_counter() - start
        finally:
            process.kill()
            process.communicate()

    run_for(4)
    return run_for(1)


def logged(workdir: pathlib.Path) -> int:
    """The last step in metrics.jsonl; 0 without one."""
    path = workdir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return max(
        (json.loads(line)["step"] for line in lines if line[-1:] == "}"), default=0
    )


def as_line(row: dict[str, Any]) -> str:
    """One row of the table."""
    if "failed" in row:
        return f"{row['case']:<7} FAILED: {first_line(row)}"
    again = f"{row['restart_s']:.1f}" if "restart_s" in row else ""
    again = again or f"{row['restore_s']:.1f} (reading alone)"
    return (
        f"{row['case']:<7} {row['state_bytes'] / 2**20:>9.1f} "
        f"{1e3 * row['step_s']:>8.1f} | {1e3 * row['blocked_s']:>10.1f} "
        f"{1e3 * row['slowed_s']:>10.1f} {row['to_disk_s']:>10.2f} "
        f"{1e3 * row['digest_s']:>11.1f} {row['digest_share']:>6.1%} "
        f"| {row['stall_share']:>5.2%} {row['steps_for_2_percent']:>14.0f} | {again}"
    )


def main() -> None:
    """Print the table; exit code 1 if a case failed."""
    cases = ("smoke", "sudoku", "table")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", nargs="+", choices=cases, default=cases)
    parser.add_argument("--saves", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--workdir", help="a folder on the disk in question")
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()
    result = about_this_run() | {"cases": []}
    print(f"{result['device']}, jax {jax.__version__}\n{HEADER}")
    with tempfile.TemporaryDirectory(dir=args.workdir) as folder:
        for name in args.cases:
            work = partial(measure, name, args, pathlib.Path(folder))
            result["cases"].append(attempt({"case": name}, work))
            print(as_line(result["cases"][-1]), flush=True)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(any("failed" in row for row in result["cases"]))


if __name__ == "__main__":
    main()
