# SPDX-License-Identifier: Apache-2.0
"""sudoku_extreme:mlp_t small enough for 2 CPU cores: does it learn real puzzles?

Command:  python train.py --config=configs/sudoku_cpu.py --workdir=runs/sudoku_cpu
          --config.data.train=train.csv --config.data.test=test.csv
Hardware: 2 CPU cores.
Time:     53 minutes.
Result:   63.9 % of the cells and 0.86 % of the puzzles of a hard test set, which is
          not the test set of Sudoku-Extreme: docs/sudoku.md.
Data:     files in the format of Sudoku-Extreme; 1,000 training puzzles with symmetries.
"""

from ml_collections import ConfigDict

from . import default, sudoku_extreme


def get_config() -> ConfigDict:
    """The paper's recipe, narrower, with fewer cycles and a higher learning rate."""
    config = sudoku_extreme.get_config("mlp_t")
    config.data.source = "csv"
    config.model.update(d_model=128, prefix_len=0, dtype="float32")
    default.set_sizes(config, swiglu={"width": 256}, token_mlp={"width": 128})
    config.rule.trm.update(h_cycles=2, l_cycles=3)
    config.optim.update(
        lr=1e-3,
        table_lr=1e-3,
        warmup_steps=100,
        decay_start=0.6,
        min_ratio=0.1,
        ema_decay=0.995,
        ema_ramp=True,
    )
    config.train.update(
        steps=6_000, batch_size=64, log_every=50, eval_every=500, checkpoint_every=100
    )
    config.eval.update(batch_size=200, max_puzzles=1_000)
    return config
