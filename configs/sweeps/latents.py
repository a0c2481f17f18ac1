# SPDX-License-Identifier: Apache-2.0
"""Does TRM need two latents, and do separate networks for them help?

Command:  python sweep.py configs/sweeps/latents.py --out=docs/sweeps/latents
          --workdirs=runs/latents
Hardware: 2 CPU cores.
Result:   two 99.32, one 99.71 % (seed 0; docs/sweeps/latents).
Claim:    one latent, updated as often as y and z together (Figure 4 of TRM's paper),
          solves fewer puzzles than two at the same cost.
"""

from trm_jax.commands.sweep_runs import Arm, Sweep


def get_sweep() -> Sweep:
    """Two latents, and one."""
    length = {"train.steps": 1_400, "train.eval_every": 350}
    # One latent: 2 times 2 + 1 calls, as in the demo's rule "trm".
    one = {
        "rule.name": "one_latent",
        "rule.trm.h_cycles": 3,  # the default, since nothing reads it
        "rule.trm.l_cycles": 6,
        "rule.one_latent.h_cycles": 2,
        "rule.one_latent.l_cycles": 2,
    }
    return Sweep(
        title="Latents, 6x6 Sudoku",
        arms=(
            Arm("two", "demo:mlp_t", length, paper="87.4 (Sudoku-Extreme)"),
            Arm("one", "demo:mlp_t", one | length, paper="71.9 (Sudoku-Extreme)"),
        ),
    )
