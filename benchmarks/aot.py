# SPDX-License-Identifier: Apache-2.0
"""Compile training steps for devices that are not present; report what they need.

python benchmarks/aot.py --topology v5e:16x16 [v5e:8x8 ...]
                         --config configs/arc_agi_1.py[:variant] [...]
                         [--set train.batch_size=12288 rule.trm.remat=dots ...]
                         [--most_rows=48] [--json=FILE] [--hlo=FOLDER]

A topology is v5e:AxB or v6e:AxB (chips of a TPU pod) or h200:N (GPUs, 8 to a host).
The first two need libtpu, from the extra `tpu`, but no TPU. The last one needs JAX's
CUDA plug-in, from the extra `aot`, but no GPU.

Each config is compiled for each topology. The table shows, per device, the memory for
arguments, temporary values and code. It also shows the model FLOPs of a step on all
devices and, by kind, the number of collectives per step and the size of their arrays,
counting every iteration of a loop. Of a GPU it shows the least time of all kernels of
a step (benchmarks/kernels.py), without exchanges; predict.py reads it from the JSON.
--most_rows sets the number of micro-batches so that each device works on at most that
many rows at once. The JSON adds XLA's count of FLOPs, which counts each loop once. A
case that fails, for example because it does not fit, is printed with the compiler's
message. The other cases still run, and the exit code is 1.
"""

import argparse
import ast
import contextlib
import importlib.util
import json
import os
import pathlib
import runpy
import sys
import time
from functools import partial
from typing import Any

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
for key, value in {
    "JAX_PLATFORMS": "cpu",
    "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
    "TPU_SKIP_MDS_QUERY": "1",  # the query would take minutes to fail
    "TPU_WORKER_HOSTNAMES": "localhost",  # libtpu complains if it is missing
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",  # libtpu complains if it is missing
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # no process uses a TPU
}.items():
    os.environ.setdefault(key, value)

from jax.experimental import topologies

from benchmarks.common import attempt, first_line
from benchmarks.hlo import Collective, collectives
from benchmarks.kernels import kernels
from benchmarks.step import sizes_of
from trm_jax import api
from trm_jax.rules.base import innermost
from trm_jax.training.build import Built, build
from trm_jax.training.cost import step_flops

H200 = pathlib.Path(__file__).parent.parent / "tests" / "ops" / "h200.textproto"
# Bytes of a device. The compiler leaves some of a chip's 16 or 32 GiB to the system.
MEMORY = {"v5e": 15.75 * 2**30, "v6e": 31.25 * 2**30, "h200": 141e9}
NEEDS = {"v5e": "libtpu", "v6e": "libtpu", "h200": "jax_cuda13_plugin"}
# Without a GPU to tune on, Triton finds no tiles for products of 916 tokens.
OPTIONS = {"v5e": {}, "v6e": {}, "h200": {"xla_gpu_enable_triton_gemm": False}}
HEADER = (
    f"{'config':<26} {'topology':<9} {'rows':>5} micro"
    "   args   temps  code   sum GB  of it | model TFLOP  kern. ms"
    " | collectives: arrays, MB"
)


def devices_of(topology: str) -> list[Any]:
    """The devices of `v5e:AxB`, `v6e:AxB` or `h200:N`."""
    chip, _, shape = topology.partition(":")
    if chip not in NEEDS:
        raise ValueError(f"topology {topology!r}; expected v5e:AxB, v6e:AxB or h200:N")
    if importlib.util.find_spec(NEEDS[chip]) is None:
        raise ModuleNotFoundError(f"{NEEDS[chip]} is not installed; --help says more")
    if NEEDS[chip] == "libtpu":
        bounds = [min(2, int(n)) for n in shape.split("x")]
        options = {"chips_per_host_bounds": [*bounds, 1]}
        return topologies.get_topology_desc(topology, "tpu", **options).devices
    _assume_cudnn()
    hosts = max(1, int(shape) // 8)
    layout = f"1x{hosts}x{int(shape) // hosts}"
    options = {"topology": layout, "target_config": H200.read_text()}
    return topologies.get_topology_desc(platform="cuda", **options).devices


def _assume_cudnn() -> None:
    """Let JAX lower calls of cuDNN 9.10, which this machine lacks, for an H200."""
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    cudnn.check_cudnn_version = lambda: 91000
    cudnn.check_compute_capability = lambda _: True
    cudnn.is_cuda_compute_capability_equal = lambda _: False


def config_of(path: str, changes: list[str]) -> Any:
    """The config of `FILE.py[:variant]` with `section.key=value` applied."""
    file, colon, variant = path.partition(":")
    if api.is_shipped(pathlib.Path(file)):
        config = api.get_config(pathlib.Path(file).stem + colon + variant)
    else:
        config = runpy.run_path(file)["get_config"](*filter(None, [variant]))
    for change in changes:
        name, _, value = change.partition("=")
        with contextlib.suppress(ValueError, SyntaxError):  # else the value is a string
            value = ast.literal_eval(value)
        config.update_from_flattened_dict({name: value})
    config.eval.batch_size = config.train.batch_size
    return config


def split(rows: int, most: int) -> int:
    """The fewest equal parts of `rows` that are at most `most` rows each."""
    return next(n for n in range(1, rows + 1) if rows % n == 0 and rows // n <= most)


def compile_step(path: str, config: Any, topology: str) -> tuple[Built, Any]:
    """The training step of the config read from `path`, compiled for the topology."""
    sizes = sizes_of(config)
    built = build(config.to_dict(), sizes, devices=devices_of(topology))
    like = built.state_like
    lowered = built.train_step.lower(like, like.carry.batch)
    return built, lowered.compile(OPTIONS[topology.partition(":")[0]])


def measure(path: str, topology: str, args: argparse.Namespace) -> dict[str, Any]:
    """Compile one config for one topology, and return a row of the table."""
    config = config_of(path, args.set)
    rows = config.train.batch_size
    if args.most_rows:
        devices = len(devices_of(topology))
        config.train.micro_batches = split(rows // devices, args.most_rows)
    start = time.perf_counter()
    built, compiled = compile_step(path, config, topology)
    seconds = time.perf_counter() - start
    text = compiled.as_text()
    if args.hlo:
        name = "_".join((pathlib.Path(path).name, topology)).replace(":", "_")
        pathlib.Path(args.hlo, f"{name}.txt").write_text(text)
    memory = compiled.memory_analysis()
    taken = {
        "arguments": memory.argument_size_in_bytes,
        "results": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
    }
    taken["sum"] = sum(taken.values())
    taken["of_device"] = MEMORY[topology.partition(":")[0]]
    found = collectives(text, devices=built.mesh.size)
    largest = sorted(found, key=lambda one: -one.nbytes)[:5]
    xla = compiled.cost_analysis() or {}
    is_gpu = topology.startswith("h200")
    return {
        "mesh": dict(built.mesh.shape),
        "rows_per_device": rows // built.mesh.size,
        "micro_batches": config.train.micro_batches,
        "remat": getattr(innermost(built.recipe.rule), "remat", None),
        "memory_bytes_per_device": taken,
        "model_flops_all_devices": step_flops(built.recipe, rows),
        "xla_flops_per_device_loops_once": xla.get("flops"),
        "kernel_seconds": sum(k.seconds for k in kernels(text)) if is_gpu else None,
        "collectives": by_kind(found),
        "largest": [one._asdict() for one in largest],
        "compile_s": seconds,
    }


def by_kind(found: list[Collective]) -> dict[str, dict[str, int]]:
    """The number of collectives per step and the bytes of their arrays, by kind."""
    totals: dict[str, dict[str, int]] = {}
    for one in found:
        total = totals.setdefault(one.kind, {"count": 0, "bytes": 0})
        total["count"] += one.count
        total["bytes"] += one.count * one.nbytes
    return totals


def as_line(row: dict[str, Any]) -> str:
    """One row of the table."""
    name = row["config"].removeprefix("configs/").replace(".py", "")
    head = f"{name:<26} {row['topology']:<9} "
    if "failed" in row:
        return f"{head} FAILED: {first_line(row)}"
    taken = row["memory_bytes_per_device"]
    sizes = [f"{taken[k] / 1e9:>6.2f}" for k in ("arguments", "temporaries", "code")]
    moved = ", ".join(
        f"{total['count']} {kind} {total['bytes'] / 1e6:.1f}"
        for kind, total in row["collectives"].items()
    )
    share, seconds = taken["sum"] / taken["of_device"], row["kernel_seconds"]
    least = f"{1e3 * seconds:.1f}" if seconds else "-"
    return (
        f"{head}{row['rows_per_device']:>5} {row['micro_batches']:>5} "
        f"{' '.join(sizes)} {taken['sum'] / 1e9:>8.2f} {share:>6.0%} | "
        f"{row['model_flops_all_devices'] / 1e12:>11.1f} {least:>9} | {moved or 'none'}"
    )


def main() -> None:
    """Print the table; write the rows as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", nargs="+", required=True)
    parser.add_argument("--config", nargs="+", required=True)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("--most_rows", type=int)
    parser.add_argument("--json", help="also write the rows to this file")
    parser.add_argument("--hlo", help="also write the programs to this folder")
    args = parser.parse_args()
    print(HEADER)
    rows = []
    for path in args.config:
        for topology in args.topology:
            case = {"config": path, "topology": topology, "set": args.set}
            rows.append(attempt(case, partial(measure, path, topology, args)))
            print(as_line(rows[-1]), flush=True)
            if args.json:
                pathlib.Path(args.json).write_text(json.dumps(rows, indent=2) + "\n")
    sys.exit(any("failed" in row for row in rows))


if __name__ == "__main__":
    main()
