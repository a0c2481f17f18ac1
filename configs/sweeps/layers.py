# SPDX-License-Identifier: Apache-2.0
"""Is a deeper network better than a shallow one that recurs?

Command:  python sweep.py configs/sweeps/layers.py --out=docs/sweeps/layers
          --workdirs=runs/layers
Hardware: 2 CPU cores.
Result:   layers_2 99.32, layers_4 98.93, layers_4_l1 99.32 %
          (seed 0; docs/sweeps/layers).
Claim:    two layers generalise better than four, also if the network with four recurs
          half as often. A layer is one mixer and one MLP, as TRM's paper counts. All
          arms do 1,400 updates; the four layers have about twice the parameters.
"""

from trm_jax.commands.sweep_runs import Arm, Sweep

LAYER = ("token_mlp", "swiglu")


def get_sweep() -> Sweep:
    """2 layers, 4 layers, and 4 layers with half as many l-cycles."""

    def arm(name: str, num_layers: int, l_cycles: int, paper: str = "") -> Arm:
        overrides = {
            "model.layers": LAYER * num_layers,
            "rule.trm.l_cycles": l_cycles,
            "train.eval_every": 350,
        }
        return Arm(name, "demo:mlp_t", overrides, paper=paper)

    return Sweep(
        title="Layers, 6x6 Sudoku",
        arms=(
            arm("layers_2", 2, l_cycles=2, paper="87.4 (Sudoku-Extreme)"),
            arm("layers_4", 4, l_cycles=2),
            arm("layers_4_l1", 4, l_cycles=1, paper="79.5 (Sudoku-Extreme)"),
        ),
    )
