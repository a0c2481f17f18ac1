# SPDX-License-Identifier: Apache-2.0
"""Do the best levers add up, and what do chains gain if they cost extra?

Command:  python sweep.py
          configs/sweeps/levers_together.py --out=docs/sweeps/levers_together
          --workdirs=runs/levers_together
Hardware: 2 CPU cores.
Result:   exact, mean of three seeds: EqR, norm and smoothing 97.6 %, wta around EqR
          96.2, EqR and norm 96.1, flow and norm 95.1, URM, norm and starts 89.5, wta
          85.6; see docs/levers.md.
Claim:    the norm adds nothing to EqR, and chains gain less than their FLOPs are
          worth. Puzzles, network and FLOPs are those of levers_6x6.py. The last two
          arms train four chains on all 64 rows and so take four times the FLOPs.
"""

from typing import Any

from configs.sweeps.levers_6x6 import DATA, LEVERS, STEPS, arms
from trm_jax.commands.sweep_runs import Sweep

NORM = LEVERS["gated_norm"][1]
# Each entry is made as those of levers_6x6.py.
JOINED: dict[str, tuple[str, dict[str, Any], float]] = {
    "eqr_norm": ("+eqr", NORM, 1.0),
    "eqr_norm_smoothing": ("+eqr", NORM | {"rule.eqr.label_smoothing": 0.1}, 1.0),
    "urm_norm_starts": ("+urm+random_starts", NORM | LEVERS["urm"][1], 1.0),
    "flow_norm": ("+flow", NORM | LEVERS["flow"][1], 1.0),
    "wta_extra": ("+wta", {}, 1.0),
    "wta_eqr_extra": ("+eqr+wta", {}, 1.0),
}


def get_sweep() -> Sweep:
    """Levers that helped alone, joined."""
    return Sweep(
        title="The best levers together, 1,000 minimal 6x6 Sudokus",
        arms=arms("mlp_t", "demo", STEPS, DATA, JOINED),
    )
