# SPDX-License-Identifier: Apache-2.0
"""Does a second network help, one for each latent?

Command:  python sweep.py configs/sweeps/networks.py --out=docs/sweeps/networks
          --workdirs=runs/networks
Hardware: 2 CPU cores.
Result:   shared 99.32, two 86.13 % (seed 0; docs/sweeps/networks).
Claim:    one network for both latents solves at least as many puzzles as two networks,
          which have twice the parameters. Both arms use the rule "hrm" with gradients
          through the last cycle and without a continue head; the shared arm is TRM. The
          FLOPs and updates are the same.
"""

from configs.sweeps.gradient import TRM
from trm_jax.commands.sweep_runs import Arm, Sweep


def get_sweep() -> Sweep:
    """One shared network, or one for each latent."""

    def arm(name: str, paper: str, *, shared: bool) -> Arm:
        share = {"rule.hrm.share_network": shared, "rule.hrm.grad_calls": 3}
        return Arm(name, "hrm:demo", TRM | share, paper=paper)

    return Sweep(
        title="One network or two, 6x6 Sudoku",
        arms=(
            arm("shared", "87.4 (Sudoku-Extreme)", shared=True),
            arm("two", "82.4 (Sudoku-Extreme)", shared=False),
        ),
    )
