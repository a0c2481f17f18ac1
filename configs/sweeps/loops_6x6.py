# SPDX-License-Identifier: Apache-2.0
"""Which recursive Mamba loops collapse at 6x6 size, and what prevents it?

Command:  python sweep.py configs/sweeps/loops_6x6.py --out=docs/sweeps/loops_6x6
          --workdirs=runs/loops_6x6; then
          python benchmarks/loop_study.py --workdirs=runs/loops_6x6
          --out=docs/sweeps/loops_6x6
Hardware: 2 CPU cores.
Result:   seed 0: Mamba-2 in both directions solves 7 (feedback) to 15 % (lifeline),
          Mamba-1 6 (encoded) to 15 % (feedback), TRM as the control 1 and 3 %, causal
          networks at most 0.2 %; all still learn. From 8 to 32 loops lifeline gains
          most, and encoded loses everything (docs/loops.md).
Claim:    none yet: see docs/loops.md. Every arm has the same data, network and number
          of updates; TRM is the control. A causal network shows no cell what follows
          it, however often it loops, so that it cannot solve a Sudoku. As many cells
          are empty as at 4x4 size: with 8 to 12 clues, as in demo.py, feedback with
          mamba2_both reached 56 % of the cells and no puzzle in 1,000 updates.
"""

from configs.sweeps.loops_4x4 import study
from trm_jax.commands.sweep_runs import Sweep


def get_sweep() -> Sweep:
    """The study at 6x6 size."""
    return study("6x6")
