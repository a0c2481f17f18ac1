# SPDX-License-Identifier: Apache-2.0
"""What travels between devices in a compiled program, read from its optimised HLO."""

import math
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
COLLECTIVE = re.compile(
    r"%?(?P<name>[\w.\-]+) = (?P<shape>\S.*?) "
    r"(?P<kind>all-gather|all-reduce|reduce-scatter|all-to-all|ragged-all-to-all|"
    r"collective-permute|collective-broadcast)(?P<start>-start)?\("
)
ARRAY = re.compile(r"\b([a-z]+\d+\w*|pred)\[([\d,]*)\]")
CALLED = re.compile(r"\b(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
TRUE_FALSE = re.compile(r"\b(?:true_computation|false_computation)=%?([\w.\-]+)")
FUSED = re.compile(r"\bcalls=%?([\w.\-]+)")
BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
WHILE = re.compile(r" while\(.*\bcondition=%?([\w.\-]+), body=%?([\w.\-]+)")
TRIPS = re.compile(r'known_trip_count"?:\s*\{"?n"?:\s*"?(\d+)')
CONSTANT = re.compile(r" = [su]\d+\[\]\S* constant\((\d+)\)")
OP_NAME = re.compile(r'op_name="([^"]*)"')
CHANNEL = re.compile(r"\bchannel_id=(\d+)")
GROUPS = (
    re.compile(r"replica_groups=\{\{([\d,]+)\}"),  # a list of groups: the first one
    re.compile(r"replica_groups=\[\d+,(\d+)\]<="),  # [groups, devices in each]
    re.compile(r"replica_groups=mesh\[([^\]]*)\][^{}]*\{([^}]*)\}"),  # axes of a mesh
)


class Collective(NamedTuple):
    """One collective operation, and how often it runs in a call of the program."""

    kind: str  # all-gather, all-reduce, reduce-scatter, all-to-all, ...
    arrays: tuple[tuple[str, tuple[int, ...]], ...]  # (dtype, shape) of the results
    group: int  # devices that take part; 0 = all
    count: float  # per call; every iteration of a loop counts
    op_name: str

    @property
    def nbytes(self) -> int:
        """Bytes of one such operation: of the whole arrays, gathered or unreduced."""
        ways = self.group if self.kind == "reduce-scatter" else 1
        return ways * sum(width(d) * math.prod(s) for d, s in self.arrays)

    @property
    def elements(self) -> int:
        """The number of elements in the largest array."""
        return max(math.prod(shape) for _, shape in self.arrays)


def width(dtype: str) -> int:
    """Bytes per element of an HLO type."""
    bits = re.search(r"\d+", dtype)
    return max(1, int(bits[0]) // 8) if bits else 1


def collectives(text: str, devices: int = 0) -> list[Collective]:
    """The collectives of an optimised HLO module (`compiled.as_text()`).

    An asynchronous pair counts once, at its start. A collective that a TPU spreads over
    several fusions also counts once: its parts share a channel. (On a GPU, different
    collectives may share one, but these are in no fusion.) All branches of a
    conditional count. `devices` is the size of groups that the HLO does not list.
    Raises ValueError for a collective in a loop whose trip count is unknown.
    """
    bodies = dict(computations(text))
    fusions = set(FUSED.findall(text))
    found: dict[tuple[str, str], Collective] = {}
    for name, times in executions(bodies).items():
        for line in bodies[name]:
            if not (match := COLLECTIVE.search(line)):
                continue
            if times is None:
                raise ValueError(f"a loop of unknown length holds {line.strip()[:200]}")
            shape = _result(match, bodies[name])
            one = _collective(name, line, match["kind"], shape, times, devices)
            channel = CHANNEL.search(line)
            is_part = channel and name in fusions
            key = (one.kind, channel[1] if is_part else name + line)
            if key not in found or found[key].count < times:
                found[key] = one
    return list(found.values())


def _result(match: re.Match[str], lines: list[str]) -> str:
    """The shape of the results; an asynchronous start may also name the operands."""
    if not match["start"]:
        return match["shape"]
    name = re.escape(match["name"])
    done = re.compile(rf" = (\S.*?) {match['kind']}-done\(.*%?{name}\)")
    return next(found[1] for line in lines if (found := done.search(line)))


def _collective(
    computation: str, line: str, kind: str, shape: str, times: float, devices: int
) -> Collective:
    arrays = tuple(
        (dtype, tuple(int(n) for n in dims.split(",") if n))
        for dtype, dims in ARRAY.findall(shape)
    )
    group = _group(line) or devices
    if kind == "all-reduce" and computation.startswith("all-reduce-scatter"):
        # On a TPU, a reduce-scatter is an all-reduce fused with a slice.
        kind = "reduce-scatter"
        arrays = tuple((d, (s[0] // group, *s[1:])) for d, s in arrays)
    op_name = OP_NAME.search(line)
    return Collective(kind, arrays, group, times, op_name[1] if op_name else "")


def computations(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield (name, lines); the name of the entry is ""."""
    name, lines = None, []
    for line in text.splitlines():
        if name is None:
            if match := HEADER.match(line):
                name, lines = ("" if match[1] else match[2]), []
        elif line.startswith("}"):
            yield name, lines
            name = None
        else:
            lines.append(line)


def executions(
    bodies: dict[str, list[str]], *, mean: bool = False
) -> dict[str, float | None]:
    """How often each computation runs in a call; None if a loop has no known count.

    All branches of a conditional count; with `mean`, each as often as the others.
    """
    times: dict[str, float | None] = {"": 1}

    def visit(name: str, count: float | None) -> None:
        for line in bodies[name]:
            trips: float | None = 1
            if loop := WHILE.search(line):
                trips = _trips(line, bodies[loop[1]])
            branches = _branches(line)
            if mean and branches:
                trips = 1 / len(branches)
            for called in CALLED.findall(line) + branches:
                if called in bodies:
                    inner = None if count is None or trips is None else count * trips
                    old = times.get(called, 0)
                    times[called] = None if None in (old, inner) else old + inner
                    visit(called, inner)

    visit("", 1)
    return times


def _branches(line: str) -> list[str]:
    found = BRANCHES.search(line)
    if not found:
        return TRUE_FALSE.findall(line)
    return [name.strip(" %") for name in found[1].split(",")]


def _trips(line: str, condition: Iterable[str]) -> int | None:
    if known := TRIPS.search(line):
        return int(known[1])
    bounds = [int(n) for text in condition for n in CONSTANT.findall(text)]
    return bounds[0] if len(bounds) == 1 else None


def _group(line: str) -> int:
    listed, iota, mesh = (pattern.search(line) for pattern in GROUPS)
    if listed:
        return listed[1].count(",") + 1
    if iota:
        return int(iota[1])
    if mesh:
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", mesh[2]))
    return 0
