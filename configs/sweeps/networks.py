# SPDX-License-Identifier: Apache-2.0
"""Does a second network help, one for each latent, or a second halting logit?

Command:  python sweep.py configs/sweeps/networks.py --out=docs/sweeps/networks
          --workdirs=runs/networks
Hardware: 2 CPU cores.
Result:   shared 99.32, act 97.75, two 86.13 % (seed 0; docs/sweeps/networks).
Claim:    one network for both latents solves at least as many puzzles as two networks,
          which have twice the parameters, and as one with a continue head (act), which
          HRM's halting needs. All arms use the rule "hrm" with gradients through the
          last cycle; the shared arm is TRM. All take as many updates, and shared and
          two as many FLOPs. act takes half as many again, since a second pass gives the
          target of its continue head.
"""

from configs.sweeps.gradient import TRM
from trm_jax.commands.sweep_runs import Arm, Sweep


def get_sweep() -> Sweep:
    """One shared network, without or with a continue head, or one for each latent."""

    def arm(name: str, paper: str, **changes: bool) -> Arm:
        rule = {"share_network": True, "grad_calls": 3} | changes
        settings = TRM | {f"rule.hrm.{key}": value for key, value in rule.items()}
        return Arm(name, "hrm:demo", settings, paper=f"{paper} (Sudoku-Extreme)")

    return Sweep(
        title="One network or two, 6x6 Sudoku",
        arms=(
            arm("shared", "87.4"),
            arm("act", "86.1", continue_head=True),
            arm("two", "82.4", share_network=False),
        ),
    )
