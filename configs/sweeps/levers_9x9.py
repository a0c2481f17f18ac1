# SPDX-License-Identifier: Apache-2.0
"""What helps a small network to learn 9x9 Sudokus of all difficulties, at equal FLOPs?

Command:  for each pair NAME CLUES of (mixed 17,38), (easy 34,38), (minimal 0,0)
          python -m data_pipeline.generate runs/levers/NAME.csv runs/levers/NAME_.csv
          --train=30000 --test=1 --clues=CLUES; and for the test, of other grids,
          python -m data_pipeline.generate runs/levers/unused.csv runs/levers/test.csv
          --train=1 --test=500 --clues=17,38 --seed=1; then
          python sweep.py configs/sweeps/levers_9x9.py --out=docs/sweeps/levers_9x9
          --workdirs=runs/levers_9x9
Hardware: 2 CPU cores.
Result:   base 30.2 %, easy 57.0, minimal 10.8, smoothing 33.8, constant_lr 32.2,
          batch_256 14.4 % exact (seed 0; docs/sudoku.md); wide and deep were not run.
Claim:    easy puzzles in plenty teach a network more than minimal ones, and a larger
          batch, width or depth is worth less than more updates at this budget. All arms
          are judged on the same 500 puzzles of 17 to 38 clues.
"""

from typing import Any

from trm_jax.commands.sweep_runs import Arm, Sweep

FOLDER = "runs/levers"
# Settings of each arm, and its number of updates: their FLOPs agree within 2 %.
ARMS: dict[str, tuple[dict[str, Any], int]] = {
    "base": ({}, 800),
    "easy": ({"data.train": f"{FOLDER}/easy.csv"}, 800),
    "minimal": ({"data.train": f"{FOLDER}/minimal.csv"}, 800),
    "smoothing": ({"rule.trm.label_smoothing": 0.1}, 800),
    "constant_lr": ({"optim.decay_start": 0.0, "optim.min_ratio": 1.0}, 800),
    "batch_256": ({"train.batch_size": 256}, 400),
    "wide": ({"model.d_model": 192, "model.swiglu.width": 384}, 400),
    "deep": ({"rule.trm.h_cycles": 3, "rule.trm.l_cycles": 6}, 366),
}
SMALL = {"model.d_model": 128, "model.swiglu.width": 256, "optim.ema_decay": 0.995}
SMALL |= {"eval.max_puzzles": 100}  # while it trains


def get_sweep() -> Sweep:
    """The small network, with one change in each arm."""

    def arm(name: str) -> Arm:
        changes, steps = ARMS[name]
        values = {
            "data.train": f"{FOLDER}/mixed.csv",
            "data.test": f"{FOLDER}/test.csv",
            "train.steps": steps,
            "train.eval_every": -(-steps // 4),
        }
        return Arm(name, "sudoku_9x9:all", SMALL | values | changes)

    return Sweep(
        title="Levers at equal FLOPs, 9x9 Sudoku",
        arms=tuple(map(arm, ARMS)),
        seeds=(0,),
    )
