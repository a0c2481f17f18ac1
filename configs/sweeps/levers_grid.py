# SPDX-License-Identifier: Apache-2.0
"""Where else does a convolution on the grid help: hybrids, 6x6 Sudoku, mazes?

Command:  python sweep.py configs/sweeps/levers_grid.py --out=docs/sweeps/levers_grid
          --workdirs=runs/levers_grid
Hardware: 2 CPU cores.
Result:   not run.
Claim:    none yet. ConvSwiGLU with 3 x 3 cells of the grid takes the place of SwiGLU.
          In levers_more.py attention so learns 4x4 Sudoku far sooner. Here hybrids and
          attention with EqR learn 4x4, and attention alone learns 6x6 (the puzzles
          and updates of levers_6x6.py) and 7x7 mazes. The plain networks of 4x4 and of
          mazes are in levers_4x4.py, levers_networks.py and levers_maze.py, with the
          same puzzles and FLOPs.
"""

from typing import Any

from configs.default import LAYERS
from configs.sweeps import levers_4x4, levers_6x6, levers_maze, levers_networks
from configs.sweeps.levers_6x6 import LEVERS, arms
from configs.sweeps.levers_more import CONV, Levers
from trm_jax.commands.sweep_runs import Arm, Sweep

CONVOLVED: Levers = {"conv_grid": CONV["conv_grid"]}  # of attention
HYBRIDS = {  # updates at 4x4
    "mamba2_attn": levers_4x4.STEPS,
    "mamba2_attn_bidir": levers_networks.NETWORKS["mamba2_attn_bidir"][2],
}


def of(task: str, size: str, steps: int, data: Any, levers: Levers) -> tuple[Arm, ...]:
    """The arms of attention, named after the task in place of the network."""
    return tuple(
        arm._replace(name=arm.name.replace("attention", task))
        for arm in arms("attention", size, steps, data, levers)
    )


def get_sweep() -> Sweep:
    """Hybrids and EqR at 4x4, attention at 6x6 and on mazes."""
    (size, data), steps = levers_networks.NETWORKS["attention"][1:]
    _, settings, cost = CONVOLVED["conv_grid"]
    found: tuple[Arm, ...] = ()
    for network, own in HYBRIDS.items():
        layers = (*LAYERS[network][:-1], "conv_swiglu")
        lever: Levers = {"conv_grid": ("", settings | {"model.layers": layers}, cost)}
        found += arms(network, size, own, data, lever)
    eqr: Levers = {"conv_grid_eqr": ("+eqr", settings, cost)}
    six: Levers = {"plain": LEVERS["plain"], **CONVOLVED}
    return Sweep(
        title="Convolutions on the grid at equal FLOPs",
        arms=(
            *found,
            *arms("attention", size, steps, data, eqr),
            *of("six", "demo", levers_6x6.STEPS, levers_6x6.DATA, six),
            *of("maze", "maze_small", levers_maze.STEPS, {}, CONVOLVED),
        ),
    )
