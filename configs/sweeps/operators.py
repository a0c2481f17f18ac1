# SPDX-License-Identifier: Apache-2.0
"""Which operator solves most puzzles at equal parameters and FLOPs?

Command:  python sweep.py configs/sweeps/operators.py --out=docs/sweeps/operators
          --workdirs=runs/operators
Hardware: 2 CPU cores.
Result:   mlp_t 99.32, mamba2_mlp_t 97.95, hrm 90.82, attention 0.88 %, the others 0 %
          (seed 0; docs/sweeps/operators).
Claim:    none yet: the sweep compares. The widths are chosen so that parameters agree
          within 5 %, and the steps so that training FLOPs agree within 2 % (a test
          checks both; Mamba-2's scan has since become more exact, and takes 5 to 7 %
          more than the others). The Mamba-only networks alternate the direction of
          their scan, since a causal scan shows no cell what follows it. HRM is that of
          hrm.py:demo (learning rate 2e-3, more exploration, a continue head), with two
          networks.
"""

from typing import Any

from trm_jax.commands.sweep_runs import Arm, Sweep

# Name, config, updates, the paper's number on Sudoku-Extreme, and the overrides.
ARMS: tuple[tuple[str, str, int, str, dict[str, Any]], ...] = (
    ("mlp_t", "demo:mlp_t", 1_400, "87.4", {}),
    ("attention", "demo:attention", 1_415, "74.7", {"model.swiglu.width": 80}),
    (
        "mamba1_bidir",
        "demo:mamba1",
        1_474,
        "",
        {
            "model.layers": ("mamba1", "swiglu", "mamba1_backward", "swiglu"),
            "model.d_model": 48,
            "model.swiglu.width": 84,
        },
    ),
    (
        "mamba2_bidir",
        "demo:mamba2_attn",
        1_170,
        "",
        {
            "model.layers": ("mamba2", "swiglu", "mamba2_backward", "swiglu"),
            "model.attention.num_heads": 8,  # the default, since nothing reads it
            "model.d_model": 48,
            "model.swiglu.width": 96,
        },
    ),
    ("mamba2_mlp_t", "demo:mamba2_mlp_t", 1_032, "84.2", {"model.token_mlp.width": 40}),
    (
        "mamba2_attn",
        "demo:mamba2_attn",
        1_132,
        "66.5",
        {"model.d_model": 48, "model.swiglu.width": 124},
    ),
    ("hrm", "hrm:demo", 1_830, "55.0", {"model.swiglu.width": 46}),
)


def get_sweep() -> Sweep:
    """Attention, MLP-t, Mamba-1, Mamba-2, two hybrids and HRM."""
    arms = []
    for name, config, steps, paper, changes in ARMS:
        length = {"train.steps": steps, "train.eval_every": -(-steps // 4)}
        published = f"{paper} (Sudoku-Extreme)" if paper else ""
        arms.append(Arm(name, config, {**changes, **length}, paper=published))
    return Sweep(
        title="Operators at equal parameters and FLOPs, 6x6 Sudoku", arms=tuple(arms)
    )
