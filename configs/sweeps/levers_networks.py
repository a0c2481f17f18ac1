# SPDX-License-Identifier: Apache-2.0
"""Do the levers that help MLP-t most also help other networks, at equal FLOPs?

Command:  python sweep.py
          configs/sweeps/levers_networks.py --out=docs/sweeps/levers_networks
          --workdirs=runs/levers_networks
Hardware: 2 CPU cores.
Result:   mean of three seeds, plain and EqR: attention 89.4 and 86.0 %, mamba2_mlp_t
          93.1 and 96.4, mamba2_attn_bidir 44.0 and 50.4; the others are in
          docs/levers.md.
Claim:    only EqR for mamba2_mlp_t, and EqR with the norm for attention, lie above the
          plain network with every seed; the norm alone helps none of them.
          TR-mamba2mlpt, which learns 4x4 puzzles too easily, has the puzzles and
          updates of levers_6x6.py, the others the puzzles of levers_4x4.py. Each
          network takes the same FLOPs with and without a lever. `together` is EqR,
          which holds random starts, and the gated norm.
"""

from typing import Any

from configs.sweeps import levers_4x4, levers_6x6
from configs.sweeps.levers_6x6 import LEVERS, arms
from trm_jax.commands.sweep_runs import Arm, Sweep

SMALL, MINIMAL = ("sudoku_4x4", levers_4x4.DATA), ("demo", levers_6x6.DATA)
# The gated unit of each network, which gets the norm; its puzzles; its updates.
NETWORKS = {
    "attention": ("swiglu", SMALL, 2_000),
    "mamba2_mlp_t": ("token_mlp", MINIMAL, levers_6x6.STEPS),
    "mamba2_attn_bidir": ("swiglu", SMALL, 1_500),
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
    for network, (unit, (size, data), steps) in NETWORKS.items():
        found += arms(network, size, steps, data, levers(unit))
    together = {"together": levers("swiglu")["together"]}
    size, data = SMALL
    return Sweep(
        title="The best levers for other networks",
        arms=found + arms("mamba2_attn", size, levers_4x4.STEPS, data, together),
    )
