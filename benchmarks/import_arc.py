# SPDX-License-Identifier: Apache-2.0
"""Time and memory of loading published weights with a puzzle table of ARC's size.

python benchmarks/import_arc.py [--rows=876407] [--folder=import_arc]

It writes fresh weights of TRM in the published layout (1.8 GB), loads them in a process
of its own with the table and without it, and removes the file.
"""

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np

import trm_jax
from trm_jax.runtime.weights import on_one_device
from trm_jax.training.build import build
from trm_jax.weights import published
from trm_jax.weights.tensors import TABLE, Bundle, Tensor, named_leaves


def write(folder: Path, rows: int) -> None:
    """Write fresh weights of the recipe for ARC-AGI-1."""
    config = trm_jax.get_config("arc_agi_1").to_dict()
    config["data"].update(source="arrays", train="data/arc", num_augmentations=0)
    sizes = {"vocab_size": 12, "grid_shape": [30, 30], "num_puzzles": 1, "blank": -1}
    state = build(on_one_device(config), sizes).init()
    leaves = named_leaves({"params": state.params, "constants": state.constants})
    table = np.zeros((rows, 512), np.float32)
    table[:] = np.arange(rows)[:, None] % 1000
    record = {
        "config": config,
        "sizes": sizes | {"num_puzzles": rows},
        "id_map": None,
        "step": 1,
        "weights": "ema",
        "provenance": {},
    }
    tensors = {k: Tensor.of(v) for k, v in (leaves | {TABLE: table}).items()}
    published.write(folder, Bundle("fresh weights", record, tensors))


def main() -> None:
    """Measure, or with --table be the process that is measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=876_407)
    parser.add_argument("--folder", type=Path, default=Path("import_arc"))
    parser.add_argument("--table", choices=["True", "False"])
    asked = parser.parse_args()
    if asked.table is None:
        write(asked.folder, asked.rows)
        try:
            for table in ("True", "False"):
                line = [sys.executable, __file__, f"--folder={asked.folder}"]
                subprocess.run([*line, f"--table={table}"], check=True)
        finally:
            shutil.rmtree(asked.folder)
        return
    start = time.perf_counter()
    model = trm_jax.load(asked.folder, table=asked.table == "True")
    seconds = time.perf_counter() - start
    # getrusage would give the peak of the parent process.
    (line,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    peak = int(line) / 2**20
    shape = tuple(model.table.shape)
    print(f"table={asked.table}: {shape}, {seconds:.1f} s, peak {peak:.2f} GiB")


if __name__ == "__main__":
    main()
