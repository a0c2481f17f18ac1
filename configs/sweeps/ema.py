# SPDX-License-Identifier: Apache-2.0
"""Does averaging the weights help?

Command:  python sweep.py configs/sweeps/ema.py --out=docs/sweeps/ema
          --workdirs=runs/ema
Hardware: 2 CPU cores.
Result:   on 99.32, off 98.93 % (seed 0; docs/sweeps/ema).
Claim:    the exponential moving average of the weights (EMA) solves more puzzles than
          the last weights. The demo's learning rate decays to zero, which has a similar
          effect as averaging; in the paper it is constant. So the difference may be
          smaller than the paper's.
"""

from trm_jax.commands.sweep_runs import Arm, Sweep

EVALUATIONS = {"train.eval_every": 350}
LAST = {"optim.ema_decay": 0.0, "optim.ema_ramp": False}


def get_sweep() -> Sweep:
    """With the EMA of the demo, and without any."""
    return Sweep(
        title="Averaged weights, 6x6 Sudoku",
        arms=(
            Arm("on", "demo:mlp_t", EVALUATIONS, paper="87.4 (Sudoku-Extreme)"),
            Arm("off", "demo:mlp_t", EVALUATIONS | LAST, paper="79.9 (Sudoku-Extreme)"),
        ),
    )
