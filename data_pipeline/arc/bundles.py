# SPDX-License-Identifier: Apache-2.0
"""ARC tasks from JSON files, bundled or one per file; every value is checked.

A subset is a bundle or a folder. A bundle is a file `<prefix>_<subset>_challenges.json`
with `.._solutions.json` beside it. A folder `<subset>` holds files `<task>.json`, which
may lie in subfolders.
"""

import pathlib
import re

import numpy as np

from ..errors import DataError
from ..json_files import as_list, read_json
from .json_grids import MAX_SIDE, as_grid
from .json_tasks import (
    ArcTask,
    Pair,
    as_task,
    as_tasks_object,
    check_names,
)


def find_subsets(folder: str | pathlib.Path) -> list[str]:
    """Names of the subsets in a folder, sorted."""
    names = set()
    for path in _entries(folder):
        if bundle := re.fullmatch(_challenges_of("[^_]+"), path.name):
            names.add(bundle[1])
        elif path.is_dir() and any(path.rglob("*.json")):
            names.add(path.name)
    return sorted(names)


def read_subset(
    folder: str | pathlib.Path,
    subset: str,
    *,
    require_solutions: bool = False,
    max_side: int = MAX_SIDE,
) -> list[ArcTask]:
    """The tasks, in the order of the bundle or sorted by name.

    Raises DataError, also for a grid with a side above `max_side`, and if
    `require_solutions`, for a missing test output.
    """
    path = find_subset(folder, subset)
    read = read_folder if path.is_dir() else read_bundle
    return read(path, require_solutions=require_solutions, max_side=max_side)


def find_subset(folder: str | pathlib.Path, subset: str) -> pathlib.Path:
    """The path of a subset: a folder of tasks, or the file of challenges."""
    pattern = re.compile(_challenges_of(re.escape(subset)))
    found = [
        path
        for path in _entries(folder)
        if pattern.fullmatch(path.name) or (path.name == subset and path.is_dir())
    ]
    if not found:
        names = f"*_{subset}_challenges.json[.gz]"
        problem = f"no file {names} and no folder {subset} in it"
        hint = _where_else(pathlib.Path(folder), subset)
        raise DataError(f"{folder}: subset {subset!r} not found: {problem}{hint}")
    if len(found) > 1:
        raise DataError(f"{found[0]} and {found[1]}: both are subset {subset!r}")
    return found[0]


def _where_else(folder: pathlib.Path, subset: str) -> str:
    """A hint, if the folder is a subset itself or holds the folder of the subsets."""
    if folder.name == subset and any(folder.glob("*.json")):
        return f"; did you mean the folder above it, {folder.parent}?"
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        if subset in find_subsets(inner):
            return f"; did you mean {inner}?"
    return ""


def read_bundle(
    challenges: pathlib.Path,
    *,
    require_solutions: bool = False,
    max_side: int = MAX_SIDE,
) -> list[ArcTask]:
    """The tasks of a file, with the outputs that the file of solutions holds."""
    content = as_tasks_object(read_json(challenges), challenges)
    tasks = [as_task(*task, challenges, max_side) for task in content.items()]
    solutions = bundle_file(challenges, "solutions")
    if solutions.exists():
        return _solved(tasks, challenges, solutions, max_side)
    if require_solutions:
        raise DataError(f"{solutions}: not found, but the test outputs are needed")
    return tasks


def bundle_file(path: pathlib.Path, part: str) -> pathlib.Path:
    """The file of a bundle that holds `part`, "challenges" or "solutions".

    `path` is either file of the bundle. The result need not exist.
    """
    name = re.sub(r"_(challenges|solutions)\.json(\.gz)?$", f"_{part}.json", path.name)
    files = [path.with_name(name), path.with_name(f"{name}.gz")]
    found = [file for file in files if file.exists()]
    if len(found) > 1:
        raise DataError(f"{found[0]} and {found[1]}: only one of them is expected")
    return found[0] if found else files[path.suffix == ".gz"]


def read_folder(
    folder: pathlib.Path,
    *,
    require_solutions: bool = False,
    max_side: int = MAX_SIDE,
) -> list[ArcTask]:
    """The tasks of all files `<task>.json` in a folder and in folders in it."""
    paths: dict[str, pathlib.Path] = {}
    for path in sorted(folder.rglob("*.json"), key=lambda path: (path.stem, path)):
        if path.stem in paths:
            both = f"{paths[path.stem]} and {path}"
            raise DataError(f"{both}: task {path.stem} occurs twice")
        paths[path.stem] = path
    if not paths:
        raise DataError(f"{folder}: 0 tasks: no file *.json in it")
    tasks = [
        as_task(name, read_json(path), path, max_side) for name, path in paths.items()
    ]
    for task in tasks:
        for i, pair in enumerate(task.test, 1):
            if require_solutions and pair.output is None:
                place = f"{paths[task.name]}: task {task.name}: test {i}"
                raise DataError(f'{place}: missing "output"')
    return tasks


def _challenges_of(subset: str) -> str:
    return rf"(?:.*_)?({subset})_challenges\.json(?:\.gz)?"


def _entries(folder: str | pathlib.Path) -> list[pathlib.Path]:
    try:
        return sorted(pathlib.Path(folder).iterdir())
    except FileNotFoundError:
        raise DataError(f"{folder}: not found") from None
    except NotADirectoryError:
        raise DataError(f"{folder}: is a file, a folder is expected") from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None


def _solved(
    tasks: list[ArcTask],
    challenges: pathlib.Path,
    solutions: pathlib.Path,
    max_side: int,
) -> list[ArcTask]:
    """The tasks with the outputs of the file of solutions."""
    content = as_tasks_object(read_json(solutions), solutions)
    check_names(content, tasks, solutions)
    solved = []
    for task in tasks:
        place = f"{solutions}: task {task.name}"
        both = f"{challenges} and {place}"
        outputs = as_list(content[task.name], place, "a list of grids")
        if len(outputs) != len(task.test):
            raise DataError(f"{both}: {_counts(len(task.test), len(outputs))}")
        test = []
        for i, (pair, value) in enumerate(zip(task.test, outputs, strict=True), 1):
            output = as_grid(value, f"{place}: solution {i}", max_side)
            if pair.output is not None and not np.array_equal(pair.output, output):
                raise DataError(f"{both}: test {i}: two different outputs")
            test.append(Pair(pair.input, output))
        solved.append(ArcTask(task.name, task.train, tuple(test)))
    return solved


def _counts(inputs: int, solutions: int) -> str:
    plurals = ["s" * (count != 1) for count in (inputs, solutions)]
    return f"{inputs} test input{plurals[0]}, {solutions} solution{plurals[1]}"
