# SPDX-License-Identifier: Apache-2.0
"""Which levers help to find paths in 7x7 mazes, at equal FLOPs?

Command:  python sweep.py configs/sweeps/levers_maze.py --out=docs/sweeps/levers_maze
          --workdirs=runs/levers_maze
Hardware: 2 CPU cores.
Result:   exact, three seeds: hybrid with scans in four directions 64.1 % (valid 71.7),
          plain 34.1; two seeds: in one direction 39.3, in both 18.5; every lever, with
          one seed, at most 28.1; see docs/levers.md.
Claim:    four-directional scans learn mazes far sooner than attention, with every
          seed; no gain of a lever is seen. Attention takes each lever that others have
          tried on mazes, and the three that help small Sudokus most. The last three
          arms are hybrids: one Mamba-2 layer, attention and SwiGLU, where the layer
          scans the rows from the start, in both directions, or rows and columns in all
          four. All arms see the same 4,000 mazes in all their turns and take the
          training FLOPs of maze_small.py, which is the plain arm.
"""

from configs.sweeps.levers_6x6 import LEVERS, arms
from trm_jax.commands.sweep_runs import Sweep

STEPS = 4_000
CHOSEN = (
    "plain",
    "random_starts",
    "eqr",
    "gated_norm",
    "all_cycles",
    "lipschitz",
    "wta",
)
# The scan of a Mamba-2 layer before attention and SwiGLU, and training FLOPs per update
# against attention and SwiGLU twice.
HYBRIDS = {"mamba2": 0.93, "mamba2_both": 1.08, "mamba2_four": 1.375}


def get_sweep() -> Sweep:
    """The levers that concern mazes, and three hybrids."""
    levers = {name: LEVERS[name] for name in CHOSEN}
    levers["flow"] = ("+flow", {"rule.flow.gamma": 1.0}, 1.0)
    levers["rope2d"] = ("+rope2d", {}, 1.0)
    for name, cost in HYBRIDS.items():
        layers = {"model.layers": (name, "attention", "swiglu")}
        levers[name] = ("", layers | {"model.mamba2.d_state": 16}, cost)
    return Sweep(
        title="Levers at equal FLOPs, 7x7 mazes",
        arms=arms("attention", "maze_small", STEPS, {}, levers),
    )
