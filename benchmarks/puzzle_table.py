# SPDX-License-Identifier: Apache-2.0
"""Time and memory that a puzzle table of ARC's size takes, by itself and in a step.

python benchmarks/puzzle_table.py [--rows=876407] [--dim=512] [--batch=768]
                                  [--devices=1] [--json=FILE]

ARC-AGI-1 has 876,407 rows, and ARC-AGI-2 has 1,191,732. On a CPU, --devices sets the
number of virtual devices. Times are medians. The step trains the smoke test's network
with these puzzle vectors, once with this table and once with a table of a single row.
"""

import argparse
import json
import os
import pathlib
import resource
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks.common import about_this_run
from configs import smoke
from trm_jax.training.build import Built, build
from trm_jax.training.digest import leaf_digests
from trm_jax.training.optim.puzzle_table import sparse_sign_sgd
from trm_jax.training.sharding import in_mesh, put_batch, puzzle_vectors
from trm_jax.types import Batch

CALLS = 20


def seconds(fn: Callable[[], Any]) -> float:
    """Seconds that one call takes until its result is ready."""
    start = time.perf_counter()
    jax.block_until_ready(fn())
    return time.perf_counter() - start


def median_ms(fn: Callable[[], Any]) -> float:
    """The median milliseconds of CALLS calls, after one to warm up."""
    fn()
    return 1e3 * statistics.median(seconds(fn) for _ in range(CALLS))


def peak_rss_mib() -> float:
    """The most memory that this process has held so far."""
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def temporary_mib(compiled: Any) -> float:
    """Temporary memory that the compiled program reserves on each device."""
    return compiled.memory_analysis().temp_size_in_bytes / 2**20


def built_for(rows: int, dim: int, batch: int, devices: int) -> Built:
    """The smoke test's network, with puzzle vectors of width `dim`."""
    config = smoke.get_config("mlp_t")
    config.model.update(puzzle_dim=dim, prefix_len=-(-dim // config.model.d_model))
    config.train.update(batch_size=batch)
    config.eval.batch_size = batch
    config.mesh.data = devices
    sizes = {"vocab_size": 6, "grid_shape": [4, 4], "num_puzzles": rows, "blank": 1}
    return build(config.to_dict(), sizes)


def random_rows(built: Built, rows: int, batch: int) -> Batch:
    """A batch whose ids lie anywhere in the table."""
    rng = np.random.default_rng(0)
    cells = rng.integers(2, 6, (batch, 16)).astype(np.int32)
    fields = {
        "inputs": cells,
        "labels": cells,
        "label_mask": np.ones(cells.shape, bool),
        "puzzle_id": rng.integers(0, rows, batch).astype(np.int32),
        "weight": np.ones(batch, np.float32),
    }
    return put_batch(fields, built.mesh)


def alone(table: jax.Array, ids: jax.Array, mesh: Mesh) -> dict[str, Any]:
    """Measure lookup, update and digest without a step; the table is donated."""
    spread = NamedSharding(mesh, P("data"))
    grads = jax.device_put(np.ones((len(ids), table.shape[1]), np.float32), spread)

    def updated(table: jax.Array, ids: jax.Array, grads: jax.Array) -> jax.Array:
        return sparse_sign_sgd(table, ids, grads, lr=1e-4, weight_decay=0.1)

    lookup = jax.jit(in_mesh(puzzle_vectors, mesh), out_shardings=spread)
    update = jax.jit(
        in_mesh(updated, mesh), donate_argnums=0, out_shardings=table.sharding
    )
    lookup, update = (
        lookup.lower(table, ids).compile(),
        update.lower(table, ids, grads).compile(),
    )
    row = {
        "lookup_ms": median_ms(lambda: lookup(table, ids)),
        "lookup_temporary_mib": temporary_mib(lookup),
        "update_temporary_mib": temporary_mib(update),
    }
    held = [table]

    def write() -> jax.Array:
        held.append(update(held.pop(), ids, grads))
        return held[0]

    row["update_ms"] = median_ms(write)
    row["peak_rss_mib_after_updates"] = peak_rss_mib()
    row["digest_ms"] = median_ms(lambda: leaf_digests({"table": held[0]}))
    return row | {"peak_rss_mib_after_digest": peak_rss_mib()}


def steps(*cases: tuple[Built, Batch]) -> list[dict[str, Any]]:
    """Time a step of each case in turn, so that a disturbance affects all cases."""
    found: list[dict[str, Any]] = []
    states, programs = [], []
    for built, batch in cases:
        states.append(built.init())
        programs.append(built.train_step.lower(states[-1], batch).compile())
        found.append({"step_temporary_mib": temporary_mib(programs[-1])})
    times: list[list[float]] = [[] for _ in cases]
    for _ in range(1 + CALLS):
        for i, (_, batch) in enumerate(cases):
            start = time.perf_counter()
            states[i] = jax.block_until_ready(programs[i](states[i], batch))
            times[i].append(time.perf_counter() - start)
    for row, taken in zip(found, times, strict=True):
        row["step_ms"] = 1e3 * statistics.median(taken[1:])
    return found


def measure(rows: int, dim: int, batch: int, devices: int) -> dict[str, Any]:
    """All figures of one table."""
    row: dict[str, Any] = {"rows": rows, "dim": dim, "batch": batch}
    row["start_rss_mib"] = peak_rss_mib()
    built, one = (built_for(r, dim, batch, devices) for r in (rows, 1))
    rows_of_batch = random_rows(built, rows, batch)
    like = built.state_like.puzzle_table
    row["devices"] = built.mesh.size
    row["stored_rows"], row["table_mib"] = like.shape[0], like.size * 4 / 2**20
    row["table_mib_per_device"] = like.sharding.shard_shape(like.shape)[0] * dim / 2**18
    zeros = jax.jit(
        lambda: jnp.zeros(like.shape, like.dtype), out_shardings=like.sharding
    )
    made: list[jax.Array] = []
    row["init_ms"] = 1e3 * seconds(lambda: made.append(zeros()) or made[0])
    row |= alone(made.pop(), rows_of_batch.puzzle_id, built.mesh)
    zero_ids = rows_of_batch._replace(puzzle_id=0 * rows_of_batch.puzzle_id)
    large, small = steps((built, rows_of_batch), (one, zero_ids))
    row |= large | {f"one_row_{name}": value for name, value in small.items()}
    return row | {"peak_rss_mib": peak_rss_mib()}


def main() -> None:
    """Print the figures, and write them to a file if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=876_407)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--batch", type=int, default=768)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--json", help="also write the figures to this file")
    args = parser.parse_args()
    # Several virtual devices on few cores deadlock without this (XLA CPU collectives).
    os.environ.setdefault("PJRT_NPROC", "16")
    jax.config.update("jax_num_cpu_devices", args.devices)
    row = about_this_run()
    row |= measure(args.rows, args.dim, args.batch, args.devices)
    for name, value in row.items():
        shown = f"{value:,.2f}" if isinstance(value, float) else value
        print(f"{name:<28} {shown}")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(row, indent=2) + "\n")


if __name__ == "__main__":
    main()
