# SPDX-License-Identifier: Apache-2.0
"""Which recursive Mamba loops collapse at 4x4 size, and what prevents it?

Command:  python sweep.py configs/sweeps/loops_4x4.py --out=docs/sweeps/loops_4x4
          --workdirs=runs/loops_4x4; then
          python benchmarks/loop_study.py --workdirs=runs/loops_4x4
          --out=docs/sweeps/loops_4x4
Hardware: 2 CPU cores.
Result:   seed 0: of the networks that see all cells, Mamba-2 solves 87 (feedback) to
          99 % (lifeline), Mamba-1 64 (feedback) to 89 % (encoded), TRM as the control
          14 %. From 8 to 32 loops, only lifeline gains with both (docs/loops.md).
Claim:    none yet: see docs/loops.md. Every arm has the same data, network and number
          of updates; TRM is the control. A causal network shows no cell what follows
          it, however often it loops, so that it cannot solve a Sudoku.
"""

from configs.loops import ARMS
from trm_jax.commands.sweep_runs import Arm, Sweep

LENGTH = {"train.steps": 1_000, "train.eval_every": 250}
NETWORKS = ("mamba2_both", "mamba1_both", "mamba2", "mamba1")


def study(size: str) -> Sweep:
    """Every arm with every network, the networks that see all cells first."""
    return Sweep(
        title=f"Recursive loops, {size} Sudoku",
        arms=tuple(
            Arm(f"{arm}.{network}", f"loops:{arm}-{network}-{size}", LENGTH)
            for network in NETWORKS
            for arm in ARMS
        ),
    )


def get_sweep() -> Sweep:
    """The study at 4x4 size."""
    return study("4x4")
