# SPDX-License-Identifier: Apache-2.0
"""Does TRM need gradients through more than the last network call?

Command:  python sweep.py configs/sweeps/gradient.py --out=docs/sweeps/gradient
          --workdirs=runs/gradient
Hardware: 2 CPU cores.
Result:   one seed: 29.3, 98.6, 99.3 and 99.4 % exact; docs/ablations.md.
Claim:    with gradients through the last one or two of six network calls, fewer puzzles
          are solved than with gradients through the last cycle, which is TRM. The last
          two calls, one for each latent, are the one-step gradient of HRM. Gradients
          through all calls show what is left to gain. All arms do the same forward
          computation and 1,400 updates; the table has their FLOPs and memory.
"""

from trm_jax.commands.sweep_runs import Arm, Sweep

# The rule "hrm" with these settings is TRM: one network and no continue head.
TRM = {
    "rule.hrm.share_network": True,
    "rule.hrm.continue_head": False,
    "optim.lr": 3e-3,
    "optim.table_lr": 3e-3,
    "halting.explore_rate": 0.1,
    "train.steps": 1_400,
    "train.eval_every": 350,
}


def get_sweep() -> Sweep:
    """The last call, the last two, the last cycle (l_cycles + 1 calls), or all."""

    def arm(name: str, grad_calls: int, paper: str = "") -> Arm:
        calls = {"rule.hrm.grad_calls": grad_calls}
        return Arm(name, "hrm:demo", TRM | calls, paper=paper)

    return Sweep(
        title="Calls with gradients, 6x6 Sudoku",
        arms=(
            arm("last_call", 1),
            arm("last_two_calls", 2, "56.5 (Sudoku-Extreme)"),
            arm("last_cycle", 3, "87.4 (Sudoku-Extreme)"),
            arm("all", 0),
        ),
    )
