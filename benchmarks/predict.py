# SPDX-License-Identifier: Apache-2.0
"""PREDICTED step times on devices that are not present: a cost model, nothing is run.

python benchmarks/predict.py [--chip v5e h200] [--devices 1 8 64 256]
                             [--config configs/arc_agi_1.py[:variant] ...]
                             [--set train.batch_size=12288 ...] [--compiled FILE]
python benchmarks/predict.py --measured FILE [...]    (written by step.py --json=FILE)

`Chip` holds the assumptions. They give three times: of the FLOPs (including recomputed
ones) at 50 % and at 15 % of the peak rate, of moving the operands and results of all
matrix products, and of running that many products in sequence. For an H200, the least
time of all kernels of the compiled program (benchmarks/roofline.py) takes the place of
the FLOPs at 50 % and of the bytes. That needs the extra `aot`, and a minute for each
line; --compiled names a file of `aot.py --topology h200:1 --json=FILE` that has the
lines of one device. A step takes the longest of these times, plus the exchange of
gradients and puzzle vectors, which overlaps nothing. The hours are those of all updates
of the config. --measured divides the FLOPs by the matrix-product rate of the same run,
and compares the result with the step time measured on one device.
"""

import argparse
import copy
import json
import pathlib
import sys
from typing import Any, NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks.aot import compile_step, config_of, split
from benchmarks.kernels import kernels
from benchmarks.step import sizes_of
from benchmarks.work import Work, work_of

EFFICIENCY = (0.5, 0.15)  # of the peak rate: hoped for, and reached in the papers
BANDWIDTH = 0.8  # of the peak memory bandwidth


class Chip(NamedTuple):
    """Rates as the manufacturer states them, and latencies that are guesses."""

    flops: float  # per second, bfloat16
    float32: float  # the same of float32 arrays at JAX's default precision, as a share
    memory: float  # bytes per second
    near: int  # devices in a ring of `link`s; rings are joined by `far_link`s
    link: float  # bytes per second that a device sends and receives in its ring
    far_link: float  # the same between rings
    product_s: float  # least time of a matrix product with its other operations
    hop_s: float  # least time of an exchange with a neighbour
    ssd: str  # the form of the Mamba-2 scan
    compiled: str = ""  # the topology of one chip whose programs kernels.py reads


CHIPS = {
    # 16x16 torus: rings of 16 both ways, 50 GB/s per link and direction.
    "v5e": Chip(197e12, 1.0, 819e9, 16, 100e9, 100e9, 4e-6, 1e-6, "batched"),
    # NVLink in a host of 8; one network card of 400 Gb/s per GPU between hosts.
    "h200": Chip(989e12, 0.5, 4.8e12, 8, 450e9, 50e9, 10e-6, 5e-6, "pallas", "h200:1"),
}
CONFIGS = [
    "configs/sudoku_extreme.py:mlp_t",
    "configs/sudoku_extreme.py:attention",
    "configs/sudoku_extreme.py:mamba2_attn",
    "configs/maze_hard.py:attention",
    "configs/maze_hard.py:mamba2_attn",
    "configs/arc_agi_1.py:attention",
    "configs/arc_agi_1.py:mamba2_attn",
]
HEADER = (
    f"{'config':<26} batch devices  rows  TFLOP  GB moved  exch. MB | "
    "FLOPs ms  bytes ms  prod. ms  kern. ms  exch. ms |         step ms     "
    "        hours  speed-up  limit"
)


def known_seconds(file: str) -> dict[tuple[str, ...], float]:
    """The times that aot.py wrote, by config, topology and changes of settings."""
    rows = json.loads(pathlib.Path(file).read_text()) if file else []
    return {
        (row["config"], row["topology"], *row["set"]): row["kernel_seconds"]
        for row in rows
        if "failed" not in row
    }


def kernel_seconds(path: str, config: Any, devices: int, topology: str) -> float:
    """The least time of all kernels of a step on one of `devices` devices."""
    config = copy.deepcopy(config)
    at_once = config.train.batch_size // config.train.micro_batches
    rows = config.train.batch_size // devices
    config.train.batch_size = config.eval.batch_size = rows
    config.train.micro_batches = split(rows, at_once)
    _, compiled = compile_step(path, config, topology)
    return sum(one.seconds for one in kernels(compiled.as_text()))


def predict(work: Work, chip: Chip, devices: int) -> dict[str, Any]:
    """Seconds of each part, and of the step at both efficiencies."""
    near, far = min(devices, chip.near), -(-devices // chip.near)
    per_byte = (near - 1) / near / chip.link + (far - 1) / far / near / chip.far_link
    hops = 3 * (near - 1 + far - 1)  # there and back for a sum, one way for a gather
    rate = chip.flops * (chip.float32 if work.dtype == "float32" else 1)
    parts = {
        "flops": work.flops / rate / EFFICIENCY[0],
        "bytes": work.nbytes / chip.memory / BANDWIDTH,
        "products": work.products * chip.product_s,
        "kernels": work.seconds,
        "exchange": (2 * work.summed + work.gathered) * per_byte + hops * chip.hop_s,
    }
    slow = parts["flops"] * EFFICIENCY[0] / EFFICIENCY[1]
    known = ("kernels", "products") if work.seconds else ("flops", "bytes", "products")
    best = max(parts[name] for name in known)
    return {
        **parts,
        "best": best + parts["exchange"],
        "worst": max(slow, best) + parts["exchange"],
        "limit": max((*known, "exchange"), key=parts.__getitem__),
    }


def table(args: argparse.Namespace) -> None:
    """One line per config and number of devices."""
    known = known_seconds(args.compiled)
    for name in args.chip:
        chip = CHIPS[name]
        print(f"\nPREDICTED for {name}: {chip}\n{HEADER}")
        for path in args.config:
            config = config_of(path, args.set)
            sizes = sizes_of(config)
            first = None
            for devices in args.devices:
                work = work_of(config, sizes, devices, chip.ssd)
                if chip.compiled:
                    key = (path, chip.compiled, *args.set)
                    if devices > 1 or (least := known.get(key, 0.0)) == 0:
                        least = kernel_seconds(path, config, devices, chip.compiled)
                    work = work._replace(seconds=least)
                found = predict(work, chip, devices)
                first = first or found["best"] * devices
                head = path.removeprefix("configs/").replace(".py", "")
                head = f"{head:<26} {config.train.batch_size:>5} {devices:>7}"
                speed_up = first / found["best"]
                steps = config.train.steps
                best, worst = (found[k] * steps / 3600 for k in ("best", "worst"))
                print(
                    f"{head} {as_line(work, found)} {best:>6.1f} to {worst:<6.1f} "
                    f"{speed_up:>8.1f}  {found['limit']}"
                )


def as_line(work: Work, found: dict[str, Any]) -> str:
    """Work and times of one device."""
    parts = "flops", "bytes", "products", "kernels", "exchange"
    times = " ".join(f"{1e3 * found[part]:>9.2f}" for part in parts)
    return (
        f"{work.rows:>5} {work.flops / 1e12:>6.1f} {work.nbytes / 1e9:>9.1f} "
        f"{(work.summed + work.gathered) / 1e6:>9.1f} | {times} | "
        f"{1e3 * found['best']:>7.1f} to {1e3 * found['worst']:<8.1f}"
    )


def compare(files: list[str]) -> None:
    """Print measured step times, and FLOPs divided by the product rate of that run."""
    print(
        "config          mixer        remat batch  GFLOP  predicted  measured ms ratio"
    )
    for file in files:
        for row in json.loads(pathlib.Path(file).read_text()):
            config = config_of(f"configs/{row['config']}.py:{row['mixer']}", [])
            config.model.dtype, config.rule.trm.remat = row["dtype"], row["remat"]
            config.train.batch_size = row["batch"]
            work = work_of(config, sizes_of(config), 1, "chunked")
            predicted = work.flops / row["matmul_gflop_per_s"] / 1e6
            print(
                f"{row['config']:<15} {row['mixer']:<12} {row['remat']:<5} "
                f"{row['batch']:>5} {work.flops / 1e9:>6.0f} {predicted:>10.0f} "
                f"{row['ms_per_step']:>12.0f} {predicted / row['ms_per_step']:>5.2f}"
            )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--chip", nargs="+", choices=CHIPS, default=["v5e"])
    parser.add_argument("--devices", nargs="+", type=int, default=[1, 8, 64, 256])
    parser.add_argument("--config", nargs="+", default=CONFIGS)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--compiled", default="", help="a file of aot.py --json")
    parser.add_argument("--measured", nargs="+", help="files of step.py --json")
    args = parser.parse_args()
    if args.measured:
        compare(args.measured)
    else:
        table(args)


if __name__ == "__main__":
    main()
