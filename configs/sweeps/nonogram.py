# SPDX-License-Identifier: Apache-2.0
"""Do 2 layers beat 4 on a puzzle that nobody has tuned them for?

Command:  python sweep.py configs/sweeps/nonogram.py --out=docs/sweeps/nonogram
          --workdirs=runs/nonogram
Hardware: 2 CPU cores.
Result:   MLP-t 10.45 with 2 layers, 23.44 with 4; attention 3.32 and 0.00 %; the
          hybrid 4.00 % with 2 (seed 0; docs/sweeps/nonogram).
Claim:    TRM's paper finds 2 layers better than 4 on Sudoku. 5x5 nonograms are a
          held-out check: the same settings as for 6x6 Sudoku, with MLP-t, attention and
          a hybrid, each once more with twice the layers (_4), for as many updates.
"""

from trm_jax.commands.sweep_runs import Arm, Sweep


def get_sweep() -> Sweep:
    """Three networks, at two depths."""
    length = {"train.steps": 1_400, "train.eval_every": 350}
    names = ("mlp_t", "attention", "mamba2_attn")
    return Sweep(
        title="Layers, 5x5 nonograms",
        arms=tuple(
            Arm(f"{name}{depth}", f"nonogram:{name}{depth}", length)
            for name in names
            for depth in ("", "_4")
        ),
    )
