# SPDX-License-Identifier: Apache-2.0
"""Do the levers that help MLP-t most also help other networks, at equal FLOPs?

Command:  python sweep.py
          configs/sweeps/levers_networks.py --out=docs/sweeps/levers_networks
          --workdirs=runs/levers_networks
Hardware: 2 CPU cores.
Result:   not run.
Claim:    none yet: see docs/levers.md. Each network has the puzzles of levers_4x4.py
          and takes the same FLOPs with and without a lever. `together` is EqR, which
          holds random starts, and the gated norm.
"""

from typing import Any

from configs.sweeps.levers_4x4 import DATA, STEPS
from configs.sweeps.levers_6x6 import LEVERS, arms
from trm_jax.commands.sweep_runs import Arm, Sweep

# The networks, and the gated unit of each, which gets the norm.
NETWORKS = {
    "attention": "swiglu",
    "mamba2_mlp_t": "token_mlp",
    "mamba2_attn_bidir": "swiglu",
}


def levers(unit: str) -> dict[str, tuple[str, dict[str, Any], float]]:
    """The three best levers, alone and together."""
    norm = {f"model.{unit}.inner_norm": True}
    return {
        **{name: LEVERS[name] for name in ("plain", "random_starts", "eqr")},
        "gated_norm": ("", norm, 1.0),
        "together": ("+eqr", norm, 1.0),
    }


def get_sweep() -> Sweep:
    """Each lever for each network; for mamba2_attn only what levers_4x4.py lacks."""
    found: tuple[Arm, ...] = ()
    for network, unit in NETWORKS.items():
        found += arms(network, "sudoku_4x4", STEPS, DATA, levers(unit))
    together = {"together": levers("swiglu")["together"]}
    return Sweep(
        title="The best levers for other networks, 450 4x4 Sudokus",
        arms=found + arms("mamba2_attn", "sudoku_4x4", STEPS, DATA, together),
    )
