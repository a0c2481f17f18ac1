# SPDX-License-Identifier: Apache-2.0
"""Train for some minutes, and return the curve: a part of benchmarks/gpu_suite.py.

The network is that of configs/sudoku_extreme.py:mlp_t. The puzzles are generated ones
of 34 to 38 clues, and the recipe is that of configs/sudoku_9x9.py:small, whose model of
262,000 parameters solves 99 % of such puzzles after 1,000 updates of 128.
"""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trm_jax
from trm_jax import api
from trm_jax.errors import Stopped

BATCH = 768
KEPT = ("step", "train/exact_accuracy", "train/cell_loss", "eval/exact_accuracy")


def short_config(steps: int, batch: int) -> Any:
    """The config of a training of `steps` updates."""
    config = trm_jax.get_config("sudoku_extreme:mlp_t")
    small = trm_jax.get_config("sudoku_9x9:small")
    config.data = small.data
    config.optim = small.optim
    config.model.prefix_len = 0
    config.mesh.data = 1  # one device, as for the other parts of the suite
    config.train.update(
        steps=steps,
        batch_size=batch,
        log_every=max(1, steps // 40),
        eval_every=max(1, steps // 4),
        checkpoint_every=steps,
    )
    config.eval.update(batch_size=batch, max_puzzles=1_000)
    return config


def measure(
    steps: int,
    batch: int = BATCH,
    stop_requested: Callable[[], bool] = lambda: False,
    **data: Any,
) -> dict[str, Any]:
    """Train, and return the seconds and what was logged. `data` changes config.data.

    `stop_requested()` is asked after every step; the curve then ends early.
    """
    config = short_config(steps, batch)
    config.data.update(data)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as workdir:
        with contextlib.suppress(Stopped):
            api.run(config.to_dict(), workdir, stop_requested=stop_requested)
        lines = Path(workdir, "metrics.jsonl").read_text().splitlines()
    logged = [json.loads(line) for line in lines]
    curve = [{key: row[key] for key in KEPT if key in row} for row in logged]
    return {"seconds": time.perf_counter() - start, "batch": batch, "curve": curve}
