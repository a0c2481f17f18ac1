# SPDX-License-Identifier: Apache-2.0
"""Which levers help MLP-t to learn from 1,000 minimal 6x6 Sudokus, at equal FLOPs?

Command:  python sweep.py configs/sweeps/levers_6x6.py --out=docs/sweeps/levers_6x6
          --workdirs=runs/levers_6x6
Hardware: 2 CPU cores.
Result:   mean of three seeds: plain 84.5 %, EqR 95.9, random starts 94.0, flow 94.0,
          anchored starts 93.9, gated norm 93.7, URM 92.9, smoothing 88.4; the whole
          table is in docs/levers.md.
Claim:    the plain network solves 95.4 % after three quarters of the updates and loses
          11 points as the learning rate decays; levers that change its input at every
          visit of a puzzle keep it from that. All arms see the same 1,000 puzzles,
          without their symmetries, and take the same training FLOPs. two_thirds and
          four_thirds are the plain network with fewer and more updates.
          An evaluation has 16 steps in each. The chains of wta share the rows of the
          batch, so that its updates are as many as the others'. Those of `growing`
          count as if all its updates had the most gradients.
"""

from typing import Any

from trm_jax.commands.sweep_runs import Arm, Sweep

STEPS = 1_400
DATA: dict[str, Any] = {
    "data.sudoku.clues": (0, 0),
    "data.train_puzzles": 1_000,
    "data.num_augmentations": 0,
}
# Lever of a variant, further settings, and training FLOPs per update against none.
LEVERS: dict[str, tuple[str, dict[str, Any], float]] = {
    "plain": ("", {}, 1.0),
    "two_thirds": ("", {}, 1.5),
    "four_thirds": ("", {}, 0.75),
    "smoothing": ("", {"rule.trm.label_smoothing": 0.1}, 1.0),
    "boxes": ("", {"model.positions": "rows_columns_boxes"}, 1.0),
    "gated_norm": ("", {"model.swiglu.inner_norm": True}, 1.0),
    "registers": ("", {"model.prefix_len": 0, "model.registers": 1}, 1.0),
    "fixed_starts": ("", {"rule.trm.starts": "fixed"}, 1.0),
    "random_starts": ("+random_starts", {}, 1.0),
    "anchored_starts": ("", {"rule.trm.starts": "anchored"}, 1.0),
    "every_cycle": ("+every_cycle", {}, 1.0),
    "all_cycles": ("+all_cycles", {"rule.trm.remat": "none"}, 1.5),
    "growing": ("", {"rule.trm.grow_cycles_to": 2, "rule.trm.grow_updates": 460}, 1.5),
    "lipschitz": ("+lipschitz", {}, 1.75),
    "cgar": ("+cgar", {"rule.trm.phase_l_cycles": (1, 1)}, 0.75),
    "muon": ("+muon", {}, 1.0),
    "eqr": ("+eqr", {}, 1.0),
    "urm": ("+urm", {"rule.urm.l_cycles": 3}, 1.0),
    "flow": ("+flow", {"rule.flow.pseudo_steps": 700, "rule.flow.gamma": 5.0}, 1.0),
    "wta": ("+wta", {"train.batch_size": 16}, 1.0),
}


def arms(
    network: str,
    size: str,
    steps: int,
    data: dict[str, Any],
    levers: dict[str, tuple[str, dict[str, Any], float]] = LEVERS,
) -> tuple[Arm, ...]:
    """An arm for each lever: as many updates as cost what `steps` plain ones do."""

    def arm(name: str) -> Arm:
        lever, settings, cost = levers[name]
        length = {
            "train.steps": (own := round(steps / cost)),
            "train.eval_every": -(-own // 4),
        }
        values = data | length | settings
        return Arm(f"{network}.{name}", f"{size}:{network}{lever}", values)

    return tuple(map(arm, levers))


def get_sweep() -> Sweep:
    """Every lever alone."""
    return Sweep(
        title="Levers at equal FLOPs, 1,000 minimal 6x6 Sudokus",
        arms=arms("mlp_t", "demo", STEPS, DATA),
    )
