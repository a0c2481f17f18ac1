# SPDX-License-Identifier: Apache-2.0
"""config.data: the section that all tasks share, and the registry of tasks.

A section is a frozen dataclass whose fields are made by `knob`. A key that differs from
its default is refused if the task or the source does not read it.
"""

import dataclasses
import importlib
import math
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, get_args, get_origin

from .errors import DataError

# The module of each task, which has a section `Settings` and a subclass `Task` of
# tasks.PuzzleTask. To add a task, write such a module anywhere and add an entry here.
TASKS = {
    "sudoku": ".sudoku.task",
    "maze": ".maze.task",
    "arc": ".arc.task",
    "nonogram": ".nonogram.task",
}
MAX_SEED = 2**63 - 1

_KINDS = {int: "a whole number", float: "a finite number", str: "a text"}
_KINDS |= {bool: "True or False"}


def knob(default: Any, doc: str, **about: Any) -> Any:
    """A field of a section, with its default, its meaning and what else is known.

    `low` and `high` bound a number, or every number of a tuple. `sources` names the
    sources that read the key, if not all of them do.
    """
    return dataclasses.field(default=default, metadata={"doc": doc, **about})


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """The settings that every task reads."""

    task: str = knob("sudoku", "the kind of puzzle: sudoku | maze | arc | nonogram")
    source: str = knob(
        "csv",
        "csv | arrays | generator | hub | prepared; arc: json | prepared | arrays",
    )
    train: str = knob(
        "",
        "csv: a .csv or .csv.gz; arrays: the folder above train/; json: the folder of "
        "the bundles; prepared: the --data_dir of the preparation",
    )
    test: str = knob("", "test data; for arrays, json, prepared: empty for the same")
    train_puzzles: int = knob(
        0,
        "training puzzles to choose at random or to generate; 0 = all",
        low=0,
        high=10**8,
    )
    test_puzzles: int = knob(
        0,
        "test puzzles to choose or to generate; 0 = all; arc: tasks",
        low=0,
        high=10**8,
    )
    num_augmentations: int = knob(
        0,
        "forms of each training puzzle besides itself; maze: up to 7; nonogram: up to "
        "7, or 3 if data.nonogram.rows and data.nonogram.cols differ",
        low=0,
        high=10**6,
    )
    seed: int = knob(
        0,
        "seed of the choice, the generator and the augmentations",
        low=0,
        high=MAX_SEED,
    )


def task_module(name: str) -> ModuleType:
    """The module of a task. Raises DataError."""
    if name not in TASKS:
        raise DataError(f"data.task = {name!r}; expected one of {', '.join(TASKS)}")
    return importlib.import_module(TASKS[name], __package__)


def defaults() -> dict[str, Any]:
    """config.data: the common keys, and a section for each task."""
    sections = {name: _defaults(task_module(name).Settings) for name in TASKS}
    return _defaults(DataSettings) | sections


def read(data: Mapping[str, Any]) -> tuple[DataSettings, Any]:
    """The common section of config.data and its task's section, checked.

    Absent keys have their default values.

    Raises:
      DataError: a key is unknown, a value is of another type or out of range, or a key
        that the task or the source does not read differs from its default.
    """
    common, sections = _sections(data)
    for name, field, value in _unread(common, sections):
        reader = f"data.source is {common.source!r}"
        if name != common.task:
            reader = f"data.task is {common.task!r}"
        raise DataError(
            f"data.{name}.{field.name} = {value!r}: {reader}, which does not read it; "
            f"leave it at its default, {field.default!r}"
        )
    return common, sections.get(common.task, task_module(common.task).Settings())


def unread(data: Mapping[str, Any]) -> dict[str, Any]:
    """The keys `data.TASK.KEY` that nothing reads, with their defaults.

    They differ from these defaults. Raises DataError as `read` does.
    """
    return {
        f"data.{name}.{field.name}": field.default
        for name, field, _ in _unread(*_sections(data))
    }


def _sections(data: Mapping[str, Any]) -> tuple[DataSettings, dict[str, Any]]:
    """The common section, and the section of each task that `data` has."""
    own = {key: value for key, value in data.items() if key not in TASKS}
    common = _section(DataSettings, own, "data")
    task = task_module(common.task)
    if common.source not in task.Task.SOURCES:
        expected = f"expected one of {', '.join(task.Task.SOURCES)}"
        raise DataError(f"data.source = {common.source!r}; {expected}")
    return common, {
        name: _section(task_module(name).Settings, data[name], f"data.{name}")
        for name in TASKS
        if name in data
    }


def _unread(
    common: DataSettings, sections: Mapping[str, Any]
) -> Iterator[tuple[str, dataclasses.Field[Any], Any]]:
    """Task, field and value of what nothing reads and yet differs from its default."""
    for name, section in sections.items():
        for field in dataclasses.fields(section):
            value, sources = getattr(section, field.name), field.metadata.get("sources")
            is_read = name == common.task and (
                sources is None or common.source in sources
            )
            if value != field.default and not is_read:
                yield name, field, value


def _defaults(section: type) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(section)}


def _section(section: type, values: Mapping[str, Any], where: str) -> Any:
    fields = {field.name: field for field in dataclasses.fields(section)}
    for key in values:
        if key not in fields:
            raise DataError(f"{where}.{key}: unknown key; {_hint(key, fields, where)}")
    return section(
        **{key: _value(value, fields[key], where) for key, value in values.items()}
    )


def _hint(key: str, fields: Mapping[str, Any], where: str) -> str:
    """Where a key that the section lacks may belong, or the keys that it has."""
    places = [f"{where}.{name}.{key}" for name in TASKS if _has(name, key)]
    if where == "data" and places:
        return f"did you mean {' or '.join(places)}?"
    return f"expected one of {', '.join(fields)}"


def _has(task: str, key: str) -> bool:
    return key in _defaults(task_module(task).Settings)


def _value(value: Any, field: dataclasses.Field, where: str) -> Any:
    """The checked value, as a tuple or a float where the field declares one."""
    low, high = (field.metadata.get(bound) for bound in ("low", "high"))
    is_tuple = get_origin(field.type) is tuple
    kind, *rest = get_args(field.type) if is_tuple else (field.type,)
    many = rest and rest[-1] is Ellipsis
    found = list(value) if is_tuple and isinstance(value, tuple | list) else [value]
    if kind is float:
        found = [float(one) if type(one) is int else one for one in found]
    good = isinstance(value, tuple | list) == is_tuple
    good &= bool(many) or len(found) == 1 + len(rest)
    for one in found:
        good &= type(one) is kind
        if good and kind in (int, float):
            good &= -math.inf < one < math.inf
            good &= (low is None or low <= one) and (high is None or one <= high)
    if not good:
        raise DataError(f"{where}.{field.name} = {value!r}; expected {_range(field)}")
    return tuple(found) if is_tuple else found[0]


def _range(field: dataclasses.Field) -> str:
    """The range of a field, in words: "a whole number >= 1"."""
    kind, *rest = get_args(field.type) or (field.type,)
    count = f"a tuple of {1 + len(rest)}, each " if rest else ""
    if rest and rest[-1] is Ellipsis:
        count = "a tuple, each "
    signs = {"low": ">=", "high": "<="}
    bounds = [
        f"{sign} {field.metadata[bound]}"
        for bound, sign in signs.items()
        if bound in field.metadata
    ]
    return f"{count}{_KINDS[kind]} {' and '.join(bounds)}".strip()
