# SPDX-License-Identifier: Apache-2.0
"""Which levers help TR-mamba2attn to learn from 450 4x4 Sudokus, at equal FLOPs?

Command:  python sweep.py configs/sweeps/levers_4x4.py --out=docs/sweeps/levers_4x4
          --workdirs=runs/levers_4x4
Hardware: 2 CPU cores.
Result:   mean of three seeds: plain 86.3 %, EqR 95.2, anchored starts 93.8, smoothing
          93.4, URM 91.7, fixed starts 91.5, random starts 91.0; the whole table is in
          docs/levers.md.
Claim:    EqR, anchored starts and label smoothing help the hybrid; the norm inside
          SwiGLU and flows, which help MLP-t, do not. At 6x6 size the hybrid solves
          nothing within the FLOPs of these sweeps (docs/ablations.md), so it learns
          smaller puzzles here. All arms see the same 450 puzzles, without their
          symmetries; otherwise as levers_6x6.py. The plain network solves 29 %
          with two thirds of the updates, so an arm with fewer has a disadvantage.
"""

from typing import Any

from configs.sweeps.levers_6x6 import arms
from trm_jax.commands.sweep_runs import Sweep

STEPS = 1_000
DATA: dict[str, Any] = {"data.train_puzzles": 450, "data.num_augmentations": 0}


def get_sweep() -> Sweep:
    """Every lever alone."""
    return Sweep(
        title="Levers at equal FLOPs, 450 4x4 Sudokus",
        arms=arms("mamba2_attn", "sudoku_4x4", STEPS, DATA),
    )
