# SPDX-License-Identifier: Apache-2.0
"""Do the levers that help small Sudokus most also help with hard 9x9 ones?

Command:  python -m data_pipeline.generate runs/levers/easy.csv runs/levers/unused.csv
          --train=30000 --test=1 --clues=34,38; then, with a file of hard puzzles as
          runs/levers/hard.csv, python sweep.py
          configs/sweeps/levers_9x9_hard.py --out=docs/sweeps/levers_9x9_hard
          --workdirs=runs/levers_9x9_hard
Hardware: 2 CPU cores.
Result:   seed 0, exact with 16 steps: plain 14.3 %, EqR 13.2, random starts 13.1, norm
          11.6; with 128 steps 27.0, 16.8, 17.4 and 17.6.
Claim:    no gain of starts, EqR and the norm is seen on puzzles that are harder than
          those of the training; see docs/levers.md. MLP-t takes 2e14 FLOPs of easy
          puzzles in each arm and is judged on 1,000 puzzles of the file. The test
          puzzles at the top of docs/sudoku.md are such a file.
"""

from typing import Any

from configs.sweeps.levers_9x9 import FOLDER, SMALL
from trm_jax.commands.sweep_runs import Arm, Sweep

ARMS: dict[str, dict[str, Any]] = {
    "plain": {},
    "random_starts": {"rule.trm.starts": "random"},
    "eqr": {"rule.name": "eqr"},
    "gated_norm": {"model.swiglu.inner_norm": True},
}


def get_sweep() -> Sweep:
    """The small network of levers_9x9.py, with one lever in each arm."""
    values = SMALL | {
        "data.train": f"{FOLDER}/easy.csv",
        "data.test": f"{FOLDER}/hard.csv",
        "data.test_puzzles": 1_000,
        "train.steps": 2_042,
        "train.eval_every": 511,
    }
    return Sweep(
        title="The best levers on hard 9x9 Sudoku, 2e14 FLOPs",
        arms=tuple(Arm(n, "sudoku_9x9:all", values | own) for n, own in ARMS.items()),
        seeds=(0,),
    )
