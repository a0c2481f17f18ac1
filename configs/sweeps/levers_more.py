# SPDX-License-Identifier: Apache-2.0
"""What do levers gain that no other sweep has: joined for the hybrid, ConvSwiGLU?

Command:  python sweep.py configs/sweeps/levers_more.py --out=docs/sweeps/levers_more
          --workdirs=runs/levers_more
Hardware: 2 CPU cores.
Result:   mean of three seeds: attention with ConvSwiGLU on the grid 92.2 %, to the left
          60.5, to both sides 55.6; TR-mamba2attn with EqR and smoothing 71.6, with
          anchored starts and smoothing 72.8; MLP-t with every_cycle_all 71.8.
Claim:    attention with a convolution on the grid has 94 % after a quarter of the
          updates, where it has 10 % without; convolutions along the sequence harm it.
          The levers that help TR-mamba2attn alone do not add up. The plain networks of
          these arms are in levers_4x4.py (mamba2_attn), levers_networks.py (attention)
          and levers_6x6.py (mlp_t), with the same puzzles and FLOPs. The conv arms are
          attention with ConvSwiGLU in place of SwiGLU; every_cycle_all has gradients
          through all cycles, and so two thirds of the updates.
"""

from typing import Any

from configs.sweeps import levers_4x4, levers_6x6, levers_networks
from configs.sweeps.levers_6x6 import LEVERS, arms
from trm_jax.commands.sweep_runs import Sweep

Levers = dict[str, tuple[str, dict[str, Any], float]]
SMOOTHED: Levers = {
    "eqr_smoothing": ("+eqr+smoothing", {}, 1.0),
    "anchored_smoothing": ("+anchored_starts+smoothing", {}, 1.0),
}
LAYERS = {
    "model.layers": ("attention", "conv_swiglu") * 2,
    "model.conv_swiglu.width": 128,  # that of SwiGLU
}
CONV: Levers = {
    f"conv_{sides}": ("", LAYERS | {"model.conv_swiglu.sides": sides}, 1.0)
    for sides in ("left", "both", "grid")
}
GRADIENTS = LEVERS["all_cycles"]
EVERY = {"every_cycle_all": ("+all_cycles+every_cycle", *GRADIENTS[1:])}


def get_sweep() -> Sweep:
    """Three networks, each with what was not tried with it."""
    size, data = levers_networks.SMALL
    steps = levers_networks.NETWORKS["attention"][2]
    return Sweep(
        title="More levers at equal FLOPs",
        arms=(
            *arms("mamba2_attn", size, levers_4x4.STEPS, data, SMOOTHED),
            *arms("attention", size, steps, data, CONV),
            *arms("mlp_t", "demo", levers_6x6.STEPS, levers_6x6.DATA, EVERY),
        ),
    )
