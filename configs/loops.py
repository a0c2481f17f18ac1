# SPDX-License-Identifier: Apache-2.0
"""Recursive Mamba loops on small Sudoku: which arms collapse, and what prevents it?

Command:  python train.py --config=configs/loops.py:ARM-NETWORK-SIZE --workdir=runs/loop
          ARM: feedback (pre-norm), post_norm, lifeline, encoded, or trm, the control.
          NETWORK: two sublayers, mamba1 or mamba2 (causal), mamba1_both, mamba2_both.
          SIZE: 4x4 or 6x6. Then python -m trm_jax.inspect.dynamics runs/loop
Hardware: 1 CPU core per run.
Result:   see docs/loops.md.
"""

from typing import Any

from ml_collections import ConfigDict

from . import default, demo

ARMS: dict[str, dict[str, Any]] = {
    "feedback": {"supervise": "first_and_last"},
    "post_norm": {"supervise": "first_and_last"},
    "lifeline": {"supervise": "first_and_last", "lifeline": True},
    "encoded": {"supervise": "every", "lifeline": True, "loop_encoding": True},
    "trm": {},
}
NETWORKS = ("mamba1", "mamba2", "mamba1_both", "mamba2_both")
# Boxes, clues and training puzzles. Both sizes leave 8 to 12 cells empty. There are
# few different puzzles of 4x4 cells.
SIZES = {"4x4": ((2, 2), (4, 8), 1_000), "6x6": ((2, 3), (24, 28), 4_000)}


def get_config(variant: str = "lifeline-mamba2_both-4x4") -> ConfigDict:
    """One arm, with one network, at one size."""
    arm, network, size = (*variant.split("-"), "", "")[:3]
    for given, known in ((arm, ARMS), (network, NETWORKS), (size, SIZES)):
        if given not in known or variant.count("-") != 2:
            raise ValueError(
                f"unknown variant {variant!r}; expected ARM-NETWORK-SIZE of "
                f"{', '.join(ARMS)}; {', '.join(NETWORKS)}; {', '.join(SIZES)}"
            )
    config = demo.get_config()
    config.model.layers = (network, network)
    # The puzzle table starts at zero. A gated network keeps such a prefix at zero,
    # where the derivative of each norm is 316: the gradient of eight loops overflows.
    config.model.prefix_len = 0
    for unused in ("swiglu", "token_mlp"):
        config.model[unused].update(default.get_config().model[unused])
    config.model.norm = "pre" if arm == "feedback" else "post"
    default.set_sizes(
        config, mamba1={"d_state": 16}, mamba2={"head_dim": 16, "d_state": 16}
    )
    # Position 0 of a causal network sees no cell, so that all cells decide on halting.
    config.halting.halt_position = "mean"
    if arm != "trm":
        default.set_rule(config, "loop", **ARMS[arm])
        config.halting.update(max_supervision_steps=1, explore_rate=0.0)
        config.eval.supervision_steps = 8
    box, clues, puzzles = SIZES[size]
    config.data.sudoku.update(box_rows=box[0], box_cols=box[1], clues=clues)
    config.data.update(train_puzzles=puzzles, test_puzzles=512)
    config.train.update(steps=2_000, eval_every=0)
    return config
