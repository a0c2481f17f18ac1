# SPDX-License-Identifier: Apache-2.0
"""Which levers help the hybrid TR-mamba2attn to learn 4x4 Sudokus, at equal FLOPs?

Command:  python sweep.py configs/sweeps/levers_4x4.py --out=docs/sweeps/levers_4x4
          --workdirs=runs/levers_4x4
Hardware: 2 CPU cores.
Result:   not run.
Claim:    none yet: see docs/levers.md. At 6x6 size the hybrid solves nothing within the
          FLOPs of these sweeps (docs/ablations.md), so it learns smaller puzzles here,
          for so few updates that the plain network does not yet solve them all.
          Otherwise as levers_6x6.py.
"""

from configs.sweeps.levers_6x6 import arms
from trm_jax.commands.sweep_runs import Sweep


def get_sweep() -> Sweep:
    """Every lever alone."""
    return Sweep(
        title="Levers at equal FLOPs, 4x4 Sudoku",
        arms=arms("mamba2_attn", "sudoku_4x4", 650, {}),
    )
