# SPDX-License-Identifier: Apache-2.0
"""How much recursion is worth its FLOPs?

Command:  python sweep.py configs/sweeps/cycles.py --out=docs/sweeps/cycles
          --workdirs=runs/cycles
Hardware: 2 CPU cores.
Result:   1x1 97.07, 2x2 99.32, 3x6 72.46 % (seed 0; docs/sweeps/cycles).
Claim:    at equal training FLOPs, more cycles per supervision step and fewer updates
          solve more puzzles than fewer cycles and more updates. The steps are chosen so
          that total FLOPs agree within 2 % (a test checks it). All arms warm up for 50
          updates.
"""

from trm_jax.commands.sweep_runs import Arm, Sweep

# h_cycles, l_cycles, updates of equal FLOPs, and the paper's number at equal updates.
CYCLES = (
    (1, 1, 2_795, ""),
    (2, 2, 1_400, "73.7 (Sudoku-Extreme)"),
    (3, 6, 481, "87.4 (Sudoku-Extreme)"),
)


def get_sweep() -> Sweep:
    """1 x 1, 2 x 2 and 3 x 6 cycles at equal FLOPs."""

    def arm(h_cycles: int, l_cycles: int, steps: int, paper: str) -> Arm:
        overrides = {
            "rule.trm.h_cycles": h_cycles,
            "rule.trm.l_cycles": l_cycles,
            "train.steps": steps,
            "train.eval_every": -(-steps // 4),
        }
        name = f"{h_cycles}x{l_cycles}"
        return Arm(name, "demo:mlp_t", overrides, paper=paper)

    arms = tuple(arm(*each) for each in CYCLES)
    return Sweep(title="Cycles at equal FLOPs, 6x6 Sudoku", arms=arms)
