# SPDX-License-Identifier: Apache-2.0
"""Facts and warnings about ARC files; see data_pipeline/check.py."""

import itertools
import pathlib
import re
from collections import defaultdict

from ..errors import DataError
from .bundles import (
    bundle_file,
    find_subset,
    find_subsets,
    read_bundle,
    read_folder,
)
from .json_tasks import ArcTask, digest, listed
from .leaks import find_leaks


def check(path: pathlib.Path) -> tuple[list[str], list[str]]:
    """Facts and warnings about the bundle of a file, or all subsets of a folder."""
    paths = _subset_paths(path)
    read = {
        name: (read_folder if source.is_dir() else read_bundle)(source)
        for name, source in paths.items()
    }
    facts: list[str] = []
    warnings: list[str] = []
    for name, tasks in read.items():
        facts += _facts(paths[name], tasks)
        warnings += _unknown_outputs(paths[name], tasks)
        warnings += _repeats(name, tasks)
    for train, test in itertools.combinations(read, 2):
        warnings += _overlap(test, read[test], train, read[train])
    return facts, warnings


def _subset_paths(path: pathlib.Path) -> dict[str, pathlib.Path]:
    expected = "[<prefix>_]<subset>_challenges.json[.gz]"
    if path.is_dir():
        if names := find_subsets(path):
            return {name: find_subset(path, name) for name in names}
        raise DataError(f"{path}: no file {expected}, no folder of *.json in it")
    if not re.fullmatch(r".*_(challenges|solutions)\.json(\.gz)?", path.name):
        problem = f"not found, or not named {expected} or .._solutions.json[.gz]"
        raise DataError(f"{path}: {problem}")
    is_challenges = "_challenges.json" in path.name
    return {path.name: path if is_challenges else bundle_file(path, "challenges")}


def _facts(path: pathlib.Path, tasks: list[ArcTask]) -> list[str]:
    train = [pair for task in tasks for pair in task.train]
    test = [pair for task in tasks for pair in task.test]
    grids = [grid for pair in train + test for grid in pair if grid is not None]
    sides = [side for grid in grids for side in grid.shape]
    return [
        f"{path}: {len(tasks):,} tasks, {len(train):,} train pairs, "
        f"{len(test):,} test inputs, grid sides {min(sides)} to {max(sides)}",
        f"SHA-256: {digest(tasks)}",
    ]


def _unknown_outputs(path: pathlib.Path, tasks: list[ArcTask]) -> list[str]:
    names = [t.name for t in tasks if any(pair.output is None for pair in t.test)]
    if not names:
        return []
    if not path.is_dir() and not bundle_file(path, "solutions").exists():
        return [f"{bundle_file(path, 'solutions')}: not found: test outputs unknown"]
    return [f"{path}: {len(names):,} tasks lack test outputs: {listed(names)}"]


def _repeats(subset: str, tasks: list[ArcTask]) -> list[str]:
    """Warnings about tasks of one subset that repeat each other."""
    place = {task.name: i for i, task in enumerate(tasks)}
    return [
        f"{subset}: {leak.train} and {leak.test} have the {leak.kind}"
        for leak in find_leaks(tasks, {subset: tasks})
        if place[leak.train] < place[leak.test]
    ]


def _overlap(
    subset: str, tasks: list[ArcTask], other: str, others: list[ArcTask]
) -> list[str]:
    """Warnings about tasks that two subsets share, counted by what is the same."""
    found = defaultdict(list)
    for leak in find_leaks(tasks, {other: others}):
        same = leak.test == leak.train
        found[leak.kind].append(leak.test if same else f"{leak.train} = {leak.test}")
    return [
        f"overlap: {other} and {subset}: {len(names):,} tasks of the {kind}: "
        f"{listed(names)}"
        for kind, names in found.items()
    ]
