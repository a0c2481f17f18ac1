# SPDX-License-Identifier: Apache-2.0
"""How long a run takes to begin: compilation, and the first step with a warm cache.

python benchmarks/start.py [--config configs/maze_hard.py[:variant] ...] [--repeats=3]

Each config's training step is compiled twice for this backend, as it is and with twice
as many h-cycles; nothing runs, and no cache is used. Then a run of configs/smoke.py
is started for one step, first with an empty cache of compiled programs, then with a
full one. The time of the command includes imports, data and the saved step.
"""

import argparse
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax

from benchmarks.aot import config_of
from benchmarks.step import sizes_of
from trm_jax.training.build import build

ROOT = pathlib.Path(__file__).parent.parent
CONFIGS = [
    "configs/sudoku_extreme.py:mlp_t",
    "configs/sudoku_extreme.py:attention",
    "configs/sudoku_extreme.py:mamba2_mlp_t",
    "configs/sudoku_extreme.py:mamba2_attn",
    "configs/sudoku_extreme.py:mamba2_attn_bidir",
    "configs/maze_hard.py:attention",
    "configs/maze_hard.py:mamba2_attn",
    "configs/arc_agi_1.py:attention",
    "configs/arc_agi_1.py:mamba2_attn",
    "configs/arc_agi_2.py:attention",
]


def compile_seconds(path: str, times: int) -> float:
    """Seconds to trace, lower and compile a step with `times` as many h-cycles."""
    config = config_of(path, [])
    config.mesh.data = 1
    config.rule.trm.h_cycles *= times
    sizes = sizes_of(config)
    built = build(config.to_dict(), sizes)
    like = built.state_like
    start = time.perf_counter()
    built.train_step.lower(like, like.carry.batch).compile()
    return time.perf_counter() - start


def first_step_seconds(cache: str) -> float:
    """Seconds of a training of one step, as a user would start it."""
    with tempfile.TemporaryDirectory() as workdir:
        flags = [f"--workdir={workdir}/run", "--config.train.steps=1"]
        flags += ["--config.train.eval_every=0"]
        words = [sys.executable, "train.py", "--config=configs/smoke.py", *flags]
        environment: dict[str, Any] = os.environ | {"JAX_COMPILATION_CACHE_DIR": cache}
        start = time.perf_counter()
        subprocess.run(
            words, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL
        )
        return time.perf_counter() - start


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", nargs="*", default=CONFIGS)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    device = jax.devices()[0].device_kind
    print(f"{device}, {os.cpu_count()} cores, jax {jax.__version__}")
    print("config                        compile s    with twice the h-cycles")
    for path in args.config:
        name = path.removeprefix("configs/").replace(".py", "")
        once, twice = (compile_seconds(path, times) for times in (1, 2))
        print(f"{name:<28} {once:>10.1f} {twice:>26.1f}", flush=True)
    with tempfile.TemporaryDirectory() as cache:
        cold = first_step_seconds(cache)
        warm = [first_step_seconds(cache) for _ in range(args.repeats)]
    print(f"smoke, one step, whole command: {cold:.1f} s with an empty cache,")
    print(f"then {statistics.median(warm):.1f} s (median of {args.repeats})")


if __name__ == "__main__":
    main()
