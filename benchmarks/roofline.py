# SPDX-License-Identifier: Apache-2.0
"""The least time of a training step on a GPU that is not there, kernel by kernel.

python benchmarks/roofline.py --config configs/sudoku_extreme.py[:variant] [...]
                              [--remat dots:1 none:6 ...] [--topology h200:1]
                              [--set train.batch_size=384 ...]

Compiles each config ahead of time (needs the extra `aot` and no GPU) and adds up, over
all kernels of the optimised program with loops multiplied out,
max(FLOPs / 790 TFLOP/s, bytes / 4.3 TB/s), rates that programs reach on an H200. Bytes
are those of operands and results; a slice counts by its own size, a Pallas kernel by
its bytes only. Prints one line for each config and each pair of rule.trm.remat and
rule.trm.unroll: milliseconds of a step, hours of the whole training at that pace,
milliseconds by group of kernels (matrix products; Pallas kernels; copies and stacks of
a loop's residuals; other), bytes moved, and bytes of temporary values. Nothing is run.
"""

import argparse
import math
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import NamedTuple

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

from benchmarks.aot import compile_step, config_of
from benchmarks.hlo import ARRAY, computations, executions, width

FLOPS, BANDWIDTH = 790e12, 4.3e12
GROUPS = ("products", "pallas", "stacked", "other")
HEADER = (
    f"{'config':<26} {'remat':<8} {'ms':>6} {'hours':>6} "
    + " ".join(f"{name:>8}" for name in GROUPS)
    + "  moved GB  temps GB"
)
INSTRUCTION = re.compile(
    r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<shape>\(.*?\)|\S+) "
    r"(?P<kind>[a-z][\w\-]*)\((?P<operands>[^)]*)\)"
)
# These move no data, or the computations that they call are counted.
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "opt-barrier"),
    *("while", "conditional", "call", "async-start", "async-done", "after-all"),
}
SLICES = ("dynamic-slice", "slice", "gather")
UPDATE = "dynamic-update-slice"
STACKS = {"dynamic-slice", UPDATE, "copy"}
ZEROES = {"broadcast", "constant", "parameter", "bitcast"}
CALLS = re.compile(r"\b(?:calls|to_apply)=%?([\w.\-]+)")
CONTRACTED = re.compile(r'lhs_contracting_dim(?:ension)?s"?[=:][\[{]([\d",]*)[\]}]')


class Kernel(NamedTuple):
    """One kernel, as often as it runs in a call of the program."""

    name: str
    group: str
    count: int
    flops: float
    nbytes: float

    @property
    def seconds(self) -> float:
        """The least time of all its runs."""
        return self.count * max(self.flops / FLOPS, self.nbytes / BANDWIDTH)


class Instruction(NamedTuple):
    """One line of a computation."""

    shape: str
    kind: str
    operands: list[str]
    line: str


Body = dict[str, Instruction]


def parsed(lines: list[str]) -> Body:
    """The instructions of a computation by name, in order."""
    found = {}
    for line in lines:
        if match := INSTRUCTION.match(line):
            names = re.findall(r"%([\w.\-]+)", match["operands"])
            found[match["name"]] = Instruction(
                match["shape"], match["kind"], names, line
            )
    return found


def kernels(text: str) -> Iterator[Kernel]:
    """The kernels of an optimised HLO module (`compiled.as_text()`).

    Raises ValueError for a kernel in a loop whose number of turns is unknown.
    """
    lines = dict(computations(text))
    bodies = {name: parsed(each) for name, each in lines.items()}
    parts = {  # of a kernel, such as the sum of a reduction
        name
        for body in bodies.values()
        for one in body.values()
        if one.kind not in ("call", "while", "conditional", "async-start")
        for name in CALLS.findall(one.line)
    }
    for name, count in executions(lines).items():
        if name not in parts:
            for at, one in bodies[name].items():
                if one.kind not in FREE:
                    if count is None:
                        raise ValueError(f"a loop of unknown length holds {at}")
                    yield kernel(at, one, bodies[name], bodies)._replace(count=count)


def kernel(at: str, one: Instruction, body: Body, bodies: dict[str, Body]) -> Kernel:
    """What one run of the instruction called `at` costs."""
    if one.kind == "fusion":
        body = bodies[CALLS.findall(one.line)[0]]
        inner, moved = list(body.values()), fusion_bytes(body)
    else:
        inner, moved = [one], instruction_bytes(one, body)
    kinds = {i.kind for i in inner}
    flops = sum(product_flops(i, body) for i in inner)
    group = "other"
    if flops:
        group = "products"
    elif one.kind == "custom-call" and "triton" in one.line:
        group = "pallas"
    elif kinds & STACKS or kinds <= ZEROES:
        group = "stacked"
    return Kernel(at, group, 1, flops, moved)


def size(shape: str) -> int:
    """Bytes of an array, or of all arrays of a tuple."""
    return sum(
        width(dtype) * math.prod(int(n) for n in dims.split(",") if n)
        for dtype, dims in ARRAY.findall(shape)
    )


def instruction_bytes(one: Instruction, body: Body) -> int:
    """Bytes that an instruction outside fusions reads and writes."""
    if one.kind == UPDATE:
        return 2 * size(body[one.operands[1]].shape)
    if one.kind in SLICES:
        return 2 * size(one.shape)
    return size(one.shape) + sum(size(body[name].shape) for name in one.operands)


def fusion_bytes(inner: Body) -> int:
    """Bytes that a fusion reads and writes; of what it slices, the slices only."""
    total = 0
    for name, one in inner.items():
        if one.kind == "parameter":
            users = [user for user in inner.values() if name in user.operands]
            each = [_read(name, user, size(one.shape)) for user in users]
            total += min(size(one.shape), sum(each))
    root = next(i for i in inner.values() if i.line.lstrip().startswith("ROOT"))
    results = [inner[n] for n in root.operands] if root.kind == "tuple" else [root]
    return total + sum(_written(result, inner) for result in results)


def _read(name: str, user: Instruction, whole: int) -> int:
    if user.kind == UPDATE and user.operands[0] == name:
        return 0  # it is updated in place
    return size(user.shape) if user.kind in SLICES else whole


def _written(result: Instruction, inner: Body) -> int:
    while result.kind == "bitcast":
        result = inner[result.operands[0]]
    updated = result.kind == UPDATE
    return size(inner[result.operands[1]].shape if updated else result.shape)


def product_flops(one: Instruction, body: Body) -> float:
    """2 m n k of a matrix product, 0 of anything else."""
    if one.kind != "dot" and not (one.kind == "custom-call" and "matmul" in one.line):
        return 0.0
    left, result = dimensions(body[one.operands[0]].shape), dimensions(one.shape)
    contracted = re.findall(r"\d+", CONTRACTED.search(one.line)[1])
    return 2.0 * math.prod(result) * math.prod(left[int(d)] for d in contracted)


def dimensions(shape: str) -> list[int]:
    """Of the first array of a shape."""
    return [int(n) for n in ARRAY.search(shape)[2].split(",") if n]


def measure(path: str, topology: str, changes: list[str]) -> str:
    """The line of one config."""
    config = config_of(path, changes)
    _, compiled = compile_step(path, config, topology)
    each = list(kernels(compiled.as_text()))
    times = {g: sum(1e3 * k.seconds for k in each if k.group == g) for g in GROUPS}
    step = sum(times.values())
    return (
        f"{step:>6.1f} {config.train.steps * step / 3.6e6:>6.1f} "
        + " ".join(f"{ms:>8.1f}" for ms in times.values())
        + f" {sum(k.count * k.nbytes for k in each) / 1e9:>9.1f}"
        + f" {compiled.memory_analysis().temp_size_in_bytes / 1e9:>9.1f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", nargs="+", required=True)
    parser.add_argument("--topology", default="h200:1")
    parser.add_argument("--remat", nargs="+", metavar="POLICY:UNROLL", default=[])
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    args = parser.parse_args()
    print(HEADER)
    for path in args.config:
        name = path.removeprefix("configs/").replace(".py", "")
        for pair in args.remat or [""]:
            remat, _, unroll = pair.partition(":")
            changes = [f"rule.trm.remat={remat}", f"rule.trm.unroll={unroll}"]
            changes = [*args.set, *(changes if pair else [])]
            line = measure(path, args.topology, changes)
            print(f"{name:<26} {pair or '-':<8} {line}", flush=True)


if __name__ == "__main__":
    main()
