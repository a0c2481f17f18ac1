# SPDX-License-Identifier: Apache-2.0
"""The least time of each kernel of a program compiled for an H200, from its HLO.

It is max(FLOPs / 790 TFLOP/s, bytes / 4.3 TB/s), rates that programs reach. Bytes are
those of operands and results; of what a kernel slices, the slices only. Attention by
cuDNN counts its products in whole tiles, the scan's Triton kernels theirs in whole
chunks, and a product fused with its gated unit its own. Any other Pallas kernel counts
by its bytes only. The branches of a conditional, as of a curriculum over cycles, count
as if each were taken equally often.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.hlo import ARRAY, computations, executions, width
from trm_jax.ops.ssd.tiles import LARGEST, rows_per_chunk

FLOPS, BANDWIDTH = 790e12, 4.3e12
GROUPS = ("products", "attention", "pallas", "stacked", "other")
CUDNN = "__cudnn$fmha"
GATED = "gated_product"  # trm_jax/ops/gated_mosaic.py
TILE = 128  # cuDNN computes whole tiles of queries and keys
TRITON = "__gpu$xla.gpu.triton"  # trm_jax/ops/ssd/kernels.py
INSTRUCTION = re.compile(
    r"^\s+(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<shape>\(.*?\)|\S+) "
    r"(?P<kind>[a-z][\w\-]*)\((?P<operands>[^)]*)\)"
)
# These move no data, or the computations that they call are counted.
FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "opt-barrier"),
    *("while", "conditional", "call", "async-start", "after-all"),
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
    count: float
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
            kind = match["kind"].replace("fusion-start", "fusion")
            found[match["name"]] = Instruction(match["shape"], kind, names, line)
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
        if not moves_nothing(one)
        for name in CALLS.findall(one.line)
    }
    for name, count in executions(lines, mean=True).items():
        if name not in parts:
            for at, one in bodies[name].items():
                if not moves_nothing(one):
                    if count is None:
                        raise ValueError(f"a loop of unknown length holds {at}")
                    yield kernel(at, one, bodies[name], bodies)._replace(count=count)


def moves_nothing(one: Instruction) -> bool:
    """Whether an instruction is no kernel, or one whose parts are counted elsewhere.

    An asynchronous kernel counts at its start.
    """
    return one.kind in FREE or one.kind.endswith("-done")


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
    elif one.kind == "custom-call" and CUDNN in one.line:
        group, flops = "attention", attention_flops(one)
    elif one.kind == "custom-call" and GATED in one.line:
        group, flops = "pallas", gated_flops(one, body)
    elif one.kind == "custom-call" and TRITON in one.line:
        group, flops = "pallas", scan_flops(one, body)
    elif one.kind == "custom-call" and "mosaic" in one.line:
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


def fusion_bytes(inner: Body) -> float:
    """Bytes that a fusion reads and writes; of what it slices, the slices only."""
    total = 0.0
    for name, one in inner.items():
        if one.kind == "parameter":
            total += size(one.shape) * min(1.0, sum(_read(name, inner)))
    root = next(i for i in inner.values() if i.line.lstrip().startswith("ROOT"))
    results = [inner[n] for n in root.operands] if root.kind == "tuple" else [root]
    return total + sum(_written(result, inner) for result in results)


def _read(name: str, inner: Body) -> list[float]:
    """The share of a value that each of its users in a fusion reads."""
    shares = []
    for at, user in inner.items():
        if name not in user.operands or (
            user.kind == UPDATE and user.operands[0] == name  # updated in place
        ):
            continue
        if user.kind in SLICES:
            shares.append(count(user.shape) / count(inner[name].shape))
        elif user.kind in ("bitcast", "convert"):
            shares += _read(at, inner)
        else:
            shares.append(1.0)
    return shares


def count(shape: str) -> int:
    """Elements of the first array of a shape."""
    return math.prod(dimensions(shape))


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


def attention_flops(one: Instruction) -> float:
    """Of cuDNN's attention: 2 products forward and 5 backward, in whole tiles."""
    b, h, l, k = dimensions(one.shape)
    tiles = -(-l // TILE) * TILE
    return (5 if "Backward" in one.line else 2) * 2.0 * b * h * tiles**2 * k


def gated_flops(one: Instruction, body: Body) -> float:
    """Of the product in `gated_product`: its operands are x and weights `k 2n`."""
    x, weights = (dimensions(body[name].shape) for name in one.operands[:2])
    return 2.0 * math.prod(x) * weights[1]


def scan_flops(one: Instruction, body: Body) -> float:
    """Of a scan's kernel: of the states, of y, or of the gradients of all chunks.

    The first begins with dt and A, the others with x, dt, A, B and C. Only the kernel
    of the last state, `b h p n`, moves the state through the last chunk.
    """
    shapes = [dimensions(body[name].shape) for name in one.operands]
    is_walk = len(shapes[0]) == 3
    (b, l, h, p), (*_, g, n) = shapes[2:4] if is_walk else (shapes[0], shapes[3])
    q = rows_per_chunk(LARGEST, l)
    chunks, scores, move = -(-l // q), q * q, q * p * n
    if is_walk:
        has_last = len(dimensions(one.shape)) == 4
        return 2.0 * b * h * (chunks - 1 + has_last) * move
    if one.shape.startswith("("):
        of_head, of_group = 2 * scores * p + 4 * move, 3 * scores * n
        return 2.0 * b * chunks * (h * of_head + g * of_group)
    return 2.0 * b * h * (chunks * (scores * (n + p) + move) + (chunks - 1) * move)


def dimensions(shape: str) -> list[int]:
    """Of the first array of a shape."""
    return [int(n) for n in ARRAY.search(shape)[2].split(",") if n]
