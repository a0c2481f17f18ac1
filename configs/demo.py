# SPDX-License-Identifier: Apache-2.0
"""6x6 Sudoku: a model that learns it in minutes on 2 CPU cores (`make demo`).

Command:  make demo, or
          python train.py --config=configs/demo.py --workdir=runs/demo
Hardware: 2 CPU cores.
Time:     1 min 47 s for all of `make demo`, without the installation.
Result:   99.32, 99.51 and 99.71 % of 1,024 unseen puzzles are exact, with seeds 0, 1
          and 2 as both --config.seed and --config.data.seed (jax 0.10.2, commit
          e4f95a8). No test puzzle's solution is a symmetry of a training puzzle's
          solution, so no test puzzle is a symmetry of a training puzzle.
          demo.py:mamba2_mlp_t: 99.02 % (seed 0), 6 min 14 s; docs/hybrids.md.
          The variants with attention, and with levers (_levers.py): not run.
"""

from ml_collections import ConfigDict

from . import _levers, default


def get_config(variant: str = "mlp_t") -> ConfigDict:
    """The network and levers named by `variant`, sized for 6x6 puzzles."""
    config = default.get_config()
    network, pulled = _levers.split(variant, "mlp_t")
    default.set_network(config, network)
    config.data.update(
        source="generator",
        train_puzzles=4_000,
        test_puzzles=1_024,
        num_augmentations=1_000,
    )
    config.data.sudoku.update(box_rows=2, box_cols=3, clues=(8, 12))
    config.model.update(d_model=64, prefix_len=1, dtype="float32")
    default.set_sizes(
        config,
        attention={"num_heads": 4},
        swiglu={"width": 128},
        token_mlp={"width": 64},
        mamba2={"head_dim": 16, "d_state": 32},
    )
    config.rule.trm.update(h_cycles=2, l_cycles=2)
    config.optim.update(
        lr=3e-3,
        table_lr=3e-3,
        warmup_steps=50,
        decay_start=0.6,
        min_ratio=0.0,
        ema_decay=0.995,
        ema_ramp=True,
    )
    config.train.update(
        steps=1_400, batch_size=64, log_every=50, eval_every=0, checkpoint_every=200
    )
    config.eval.update(batch_size=256, max_puzzles=0)
    _levers.pull(config, pulled)
    return config
