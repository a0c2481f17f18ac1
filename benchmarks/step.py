# SPDX-License-Identifier: Apache-2.0
"""Time of one training step on one device, and the device's matrix-product rate.

python benchmarks/step.py [--mixer=mlp_t attention] [--dtype=float32 bfloat16]
                          [--batch=8] [--steps=5] [--remat none[:1] dots:6 ...]
                          [--config=sudoku_extreme|maze_hard|arc_agi_1|arc_agi_2|demo]
                          [--micro_batches=1] [--mosaic] [--json=FILE]

The model is the one in the paper for the task, by default for Sudoku (width 512, 97
tokens, 3x6 cycles). The model for ARC includes its puzzle table. FLOPs are model FLOPs:
all network calls, plus twice the differentiated ones for the backward pass.
--remat takes pairs of rule.trm.remat and rule.trm.unroll; without the second number the
config's value holds. --mosaic takes the kernels of gated units and of the Mamba-2 scan
that are for an H100 or H200 and are used by name only.
"""

import argparse
import importlib
import itertools
import json
import pathlib
import statistics
import sys
import time
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax
import jax.numpy as jnp

from benchmarks.common import matmul_rate
from data_pipeline import tasks
from trm_jax.training.build import build
from trm_jax.training.cost import step_flops

MAX_ROWS = 65_536  # most rows of the product that rates are compared with
# ARC's number of puzzle ids depends on its files; these are for the published ones.
ARC_IDS = {"evaluation": 876_407, "evaluation2": 1_191_732}  # by the subset of the test
CONFIGS = ("sudoku_extreme", "maze_hard", "arc_agi_1", "arc_agi_2", "demo")


def sizes_of(config: Any) -> dict[str, Any]:
    """The sizes of the data, without reading data."""
    if config.data.task == "arc" and not config.data.train:
        ids = ARC_IDS[config.data.arc.test_subset]
        shape = [config.data.arc.side] * 2
        return {"vocab_size": 12, "grid_shape": shape, "num_puzzles": ids, "blank": -1}
    return tasks.spec_of(config.data).sizes


def measure(
    mixer: str,
    dtype: str,
    batch: int,
    steps: int,
    remat: str = "none",
    name: str = "sudoku_extreme",
    micro_batches: int = 1,
    *,
    mosaic: bool = False,
) -> dict[str, Any]:
    """Median time of `steps` steps after one to warm up, with rates and memory."""
    config = importlib.import_module(f"configs.{name}").get_config(mixer)
    config.model.dtype = dtype
    for operator in ("swiglu", "token_mlp", "mamba2") if mosaic else ():
        if any(layer.startswith(operator) for layer in config.model.layers):
            config.model[operator].implementation = "mosaic"
    config.rule.trm.remat, _, unroll = remat.partition(":")
    config.rule.trm.unroll = int(unroll or config.rule.trm.unroll)
    config.train.update(batch_size=batch, micro_batches=micro_batches)
    config.eval.batch_size = batch
    config.mesh.data = 1  # one device, as for the product
    sizes = sizes_of(config)
    built = build(config.to_dict(), sizes)
    state = built.init()
    keys = jax.random.split(jax.random.key(1))
    shape = batch, built.recipe.model.config.num_cells
    cells = jax.random.randint(keys[0], shape, 2, sizes["vocab_size"], jnp.int32)
    ids = jax.random.randint(keys[1], (batch,), 0, sizes["num_puzzles"], jnp.int32)
    rows = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), state.carry.batch)
    rows = rows._replace(inputs=cells, labels=cells, puzzle_id=ids)
    start = time.perf_counter()
    compiled = built.train_step.lower(state, rows).compile()
    compile_s = time.perf_counter() - start
    times = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        state = jax.block_until_ready(compiled(state, rows))
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times[1:])
    flops = step_flops(built.recipe, batch)
    product = matmul_rate(
        dtype, min(batch * built.recipe.model.config.seq_len, MAX_ROWS)
    )
    memory = compiled.memory_analysis()
    return {
        "config": name,
        "mixer": mixer,
        "dtype": dtype,
        "remat": remat,
        "mosaic": mosaic,
        "batch": batch,
        "micro_batches": micro_batches,
        "ms_per_step": 1e3 * seconds,
        "fastest_ms": 1e3 * min(times[1:]),
        "puzzles_per_s": batch / seconds,
        "model_flops": flops,
        "model_gflop_per_s": flops / seconds / 1e9,
        "matmul_gflop_per_s": product / 1e9,
        "ratio": flops / seconds / product,
        "compile_s": compile_s,
        "temporary_bytes": memory.temp_size_in_bytes,
        "peak_bytes": (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use"),
    }


def as_line(row: dict[str, Any]) -> str:
    """One row of the table."""
    return (
        f"{row['config']:<14} {row['mixer']:<12} {row['dtype']:<9} "
        f"{row['remat'] + ' mosaic' * row['mosaic']:<12} "
        f"{row['batch']:>5} "
        f"{row['ms_per_step']:>10.1f} {row['model_gflop_per_s']:>10.0f} "
        f"{row['matmul_gflop_per_s']:>10.0f} {100 * row['ratio']:>6.0f} % "
        f"{row['compile_s']:>7.1f} {row['temporary_bytes'] / 2**20:>9.0f}"
    )


HEADER = (
    "config         mixer        dtype     remat        batch    ms/step   GFLOP/s  "
    "matmul GF  ratio compile s  temp MiB"
)


def main() -> None:
    """Print the table, and one JSON line or file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mixer", nargs="+", default=["mlp_t", "attention"])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--remat", nargs="+", default=["none"])
    parser.add_argument("--config", default=CONFIGS[0], choices=CONFIGS)
    parser.add_argument("--micro_batches", type=int, default=1)
    parser.add_argument("--mosaic", action="store_true")
    parser.add_argument("--json", help="also write the rows to this file")
    args = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}\n{HEADER}")
    rows = []
    for mixer, dtype, remat in itertools.product(args.mixer, args.dtype, args.remat):
        case = mixer, dtype, args.batch, args.steps, remat
        of_config = args.config, args.micro_batches
        rows.append(measure(*case, *of_config, mosaic=args.mosaic))
        print(as_line(rows[-1]), flush=True)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
