# SPDX-License-Identifier: Apache-2.0
"""Which learning rate does Muon need at this size, and does it need the inner norm?

Command:  python sweep.py configs/sweeps/levers_muon.py --out=docs/sweeps/levers_muon
          --workdirs=runs/levers_muon
Hardware: 2 CPU cores.
Result:   mean of three seeds, without and with the norm: 80.1 and 81.9 % at a rate of
          0.05, 71.8 (with) at 0.02, 26.3 and 23.6 at 0.005.
Claim:    a rate of 0.05 is better than the default of 0.02, and the norm changes
          nothing. Puzzles, network and FLOPs are those of levers_6x6.py, whose arms
          `plain` (84.5 %), `gated_norm` and `muon` (72.1 %; 0.02 without the norm)
          belong to this comparison. The authors of the published recipe have the norm.
"""

from typing import Any

from configs.sweeps.levers_6x6 import DATA, LEVERS, STEPS, arms
from trm_jax.commands.sweep_runs import Sweep

NORM = LEVERS["gated_norm"][1]
RATES = (0.05, 0.005)


def get_sweep() -> Sweep:
    """A higher and a lower rate without and with the norm, and the default with it."""
    levers: dict[str, tuple[str, dict[str, Any], float]] = {
        "muon_norm": ("+muon", NORM, 1.0)
    }
    for rate in RATES:
        other = {"optim.muon.lr": rate}
        levers[f"muon_{rate}"] = ("+muon", other, 1.0)
        levers[f"muon_norm_{rate}"] = ("+muon", other | NORM, 1.0)
    return Sweep(
        title="Learning rates of Muon, 1,000 minimal 6x6 Sudokus",
        arms=arms("mlp_t", "demo", STEPS, DATA, levers),
    )
