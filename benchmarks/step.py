# SPDX-License-Identifier: Apache-2.0
"""Time of one training step, beside the machine's own matrix-product rate.

python benchmarks/step.py [--mixer=mlp_t attention] [--dtype=float32 bfloat16]
                          [--batch=8] [--steps=5] [--remat=none] [--json=FILE]

The model is the paper's Sudoku network (width 512, 97 tokens, 3x6 cycles). FLOPs are
model FLOPs: all network calls, and twice the differentiated ones for their backward.
"""

import argparse
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
from configs import sudoku_extreme
from data_pipeline import sources
from trm_jax.build import build
from trm_jax.cost import step_flops


def measure(
    mixer: str, dtype: str, batch: int, steps: int, remat: str = "none"
) -> dict[str, Any]:
    """Median time of `steps` steps after one to compile, and what it means."""
    config = sudoku_extreme.get_config(mixer)
    config.model.update(dtype=dtype, remat=remat)
    config.train.batch_size = batch
    built = build(config.to_dict(), sources.spec_of(**config.data).sizes)
    state = built.init()
    cells = jax.random.randint(jax.random.key(1), (batch, 81), 2, 11, jnp.int32)
    rows = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), state.carry.batch)
    ids = jnp.zeros(batch, jnp.int32)
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
    flops = step_flops(built.model.config, batch)
    product = matmul_rate(dtype, batch * built.model.config.seq_len)
    memory = compiled.memory_analysis()
    return {
        "mixer": mixer,
        "dtype": dtype,
        "remat": remat,
        "batch": batch,
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
        f"{row['mixer']:<12} {row['dtype']:<9} {row['remat']:<5} {row['batch']:>5} "
        f"{row['ms_per_step']:>10.1f} {row['model_gflop_per_s']:>10.0f} "
        f"{row['matmul_gflop_per_s']:>10.0f} {100 * row['ratio']:>6.0f} % "
        f"{row['compile_s']:>7.1f} {row['temporary_bytes'] / 2**20:>9.0f}"
    )


HEADER = (
    "mixer        dtype     remat batch    ms/step   GFLOP/s matmul GF/s  ratio"
    " compile s  temp MiB"
)


def main() -> None:
    """Print the table, and one JSON line or file."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--mixer", nargs="+", default=["mlp_t", "attention"])
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--remat", default="none")
    parser.add_argument("--json", help="also write the rows to this file")
    args = parser.parse_args()
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}\n{HEADER}")
    rows = []
    for mixer in args.mixer:
        for dtype in args.dtype:
            rows.append(measure(mixer, dtype, args.batch, args.steps, args.remat))
            print(as_line(rows[-1]), flush=True)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
