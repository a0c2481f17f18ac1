# SPDX-License-Identifier: Apache-2.0
"""How many updates of the latent per update of the answer?

Command:  python sweep.py configs/sweeps/l_cycles.py --out=docs/sweeps/l_cycles
          --workdirs=runs/l_cycles
Hardware: 2 CPU cores.
Result:   one seed: 99.3, 99.5, 99.2 and 99.9 % exact; docs/ablations.md.
Claim:    more l-cycles raise the accuracy at equal updates, and the memory of a step
          grows in proportion, since gradients flow through all of the last cycle. The
          table has the accuracy and the memory (temporaries).
"""

from trm_jax.commands.sweep_runs import Arm, Sweep


def get_sweep() -> Sweep:
    """2, 4, 6 and 8 l-cycles, with 2 h-cycles and 1,400 updates."""

    def arm(l_cycles: int) -> Arm:
        overrides = {"rule.trm.l_cycles": l_cycles, "train.eval_every": 350}
        return Arm(f"l{l_cycles}", "demo:mlp_t", overrides)

    return Sweep(
        title="l-cycles, 6x6 Sudoku",
        arms=tuple(arm(l_cycles) for l_cycles in (2, 4, 6, 8)),
    )
