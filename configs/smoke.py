# SPDX-License-Identifier: Apache-2.0
"""A few dozen generated 4x4 puzzles: does everything work?

Command:  python train.py --config=configs/smoke.py --workdir=runs/smoke
Hardware: 2 CPU cores.
Time:     11 s for all of `make smoke`, without the installation.
Result:   100 % of 64 unseen puzzles exact (mlp_t, seed 0; jax 0.10.2, commit d621dfc).
          At this size the variants with attention learn cells, but solve few puzzles.
"""

from ml_collections import ConfigDict

from . import default


def get_config(variant: str = "mlp_t") -> ConfigDict:
    """A toy network. The tests use its variants (see default.LAYERS)."""
    config = default.get_config()
    default.set_network(config, variant)
    config.data.update(
        source="generator", train_puzzles=48, test_puzzles=64, num_augmentations=100
    )
    config.data.sudoku.update(box_rows=2, box_cols=2, clues=(5, 8))
    config.model.update(d_model=32, prefix_len=1, dtype="float32")
    default.set_sizes(
        config,
        attention={"num_heads": 2},
        swiglu={"width": 64},
        token_mlp={"width": 32},
        mamba2={"head_dim": 8, "d_state": 16},
    )
    config.rule.trm.update(h_cycles=2, l_cycles=2)
    config.halting.update(max_supervision_steps=8)
    config.optim.update(
        lr=3e-3, table_lr=3e-3, warmup_steps=20, ema_decay=0.99, ema_ramp=True
    )
    config.train.update(
        steps=400, batch_size=32, log_every=20, eval_every=200, checkpoint_every=50
    )
    config.eval.batch_size = 64
    return config
