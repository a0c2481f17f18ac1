# SPDX-License-Identifier: Apache-2.0
"""HRM (arXiv 2506.21734) with its published recipes, and at sizes for a CPU.

Command:  python train.py --config=configs/hrm.py:VARIANT --workdir=runs/hrm
          (VARIANT: sudoku, maze, arc, demo, demo_text or smoke; for arc also
          --config.data.train=FOLDER)
Hardware: eight GPUs in the paper for sudoku, maze and arc (not run); 2 CPU cores for
          the others.
Result:   exact accuracy in the paper is 55.0 % (sudoku) and 74.5 % (maze), and pass@2
          40.3 % (arc). Not run here. demo: 96.48 % of 1,024 unseen puzzles are exact
          (seed 0, jax 0.10.2, commit 238edf3 with these settings; 14 min on one core).
          Without an average of the weights it is 85.25 % with an exploration of 0.5,
          and with 0.1 it is 93.85 %, or 76.95 % after 8,000 steps: solved puzzles then
          drift away again between step 9 and 16. smoke was not run.
          demo_text is demo with the gradients of HRM-Text (sapientinc/HRM-Text,
          models/baselines/hrm_nocarry_bp_warmup.py and config/arch/net/hrm.yaml):
          through two network calls at first, and through five after a fifth of the
          updates. With three calls, HRM-Text has gradients in both calls of `high` and
          in one of `low`; here they are in the last three calls. Not run.
Data:     as in sudoku_extreme.py, maze_hard.py and arc_agi_1.py; the others generate
          their puzzles.
"""

from ml_collections import ConfigDict

from . import arc_agi_1, default, demo, maze_hard, smoke, sudoku_extreme

FULL = {"sudoku": sudoku_extreme, "maze": maze_hard, "arc": arc_agi_1}
SMALL = {"demo": demo, "demo_text": demo, "smoke": smoke}


def get_config(variant: str = "sudoku") -> ConfigDict:
    """The recipe for a task, or a small model."""
    if variant not in FULL | SMALL:
        names = ", ".join(FULL | SMALL)
        raise ValueError(f"unknown variant {variant!r}; expected one of {names}")
    is_demo = variant.startswith("demo")
    network = "mlp_t" if is_demo else "attention"
    config = (FULL | SMALL)[variant].get_config(network)
    default.set_rule(config, "hrm", h_cycles=2, l_cycles=2)
    config.model.prefix_len = 1
    config.optim.ema_decay = 0.0
    if variant in FULL:
        config.model.layers = default.LAYERS["attention"] * 2
        config.train.micro_batches = 1
    if variant in ("sudoku", "maze"):
        config.train.steps = 26_041  # 20,000 epochs of 1,000 puzzles
    if variant == "maze":
        config.data.num_augmentations = 0
    if variant in SMALL:
        config.optim.ema_ramp = False
    if is_demo:
        config.optim.update(lr=2e-3, table_lr=2e-3, ema_decay=0.995, ema_ramp=True)
        # Rows that stay after they are solved teach the states to stay, too.
        config.halting.explore_rate = 0.3
        config.train.steps = 4_000
    if variant == "demo_text":
        config.rule.hrm.update(grow_calls_to=5, grow_updates=config.train.steps // 5)
    return config
