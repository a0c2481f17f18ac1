# SPDX-License-Identifier: Apache-2.0
"""The names of the prepared data set arc_agi, and a function that opens it."""

import pathlib
from collections.abc import Sequence
from typing import Any

from ...arc.ids import IdTable, Tasks
from ...errors import DataError
from ..reading import PreparedSet
from .columns import COLUMNS, unpack

NAME = "arc_agi"
VERSION = "1.0.0"
SPLIT = "tasks"
SUBSETS = {  # config: what is trained on, what is tested on
    "arc_agi_1": (("training", "evaluation", "concept"), "evaluation"),
    "arc_agi_2": (("training2", "evaluation2", "concept"), "evaluation2"),
}
CUSTOM = "custom"  # any other subsets


def prepared_set(train_subsets: Sequence[str], test_subset: str) -> PreparedSet:
    """The data set of these subsets."""
    asked = tuple(train_subsets), test_subset
    named = (config for config, subsets in SUBSETS.items() if subsets == asked)
    return PreparedSet(NAME, VERSION, next(named, CUSTOM), (SPLIT,), COLUMNS)


def request(
    *,
    train_subsets: Sequence[str],
    test_subset: str,
    allow_leaks: bool,
    num_augmentations: int,
    seed: int,
) -> dict[str, Any]:
    """The settings of config.data that metadata.json records."""
    return {
        "train_subsets": list(train_subsets),
        "test_subset": test_subset,
        "allow_leaks": allow_leaks,
        "num_augmentations": num_augmentations,
        "seed": seed,
    }


def open_prepared(data_dir: str | pathlib.Path, **asked: Any) -> tuple[Tasks, IdTable]:
    """The training and test tasks and the ids, mapped into memory.

    `asked` holds the arguments of `request`. The folder must have been prepared with
    the same values, but one prepared without leaks may be opened with leaks allowed.
    Raises DataError.
    """
    wanted = request(**asked)
    prepared = prepared_set(wanted["train_subsets"], wanted["test_subset"])
    recorded = prepared.recorded(data_dir, "request")
    for key, value in wanted.items():
        found = recorded.get(key) if isinstance(recorded, dict) else None
        if found != value and not (key == "allow_leaks" and found is False):
            raise DataError(
                f"{prepared.folder(data_dir)}: prepared with {key} = {found}, but "
                f"data.{key} = {value}; prepare it again under another --data_dir"
            )
    warnings = prepared.recorded(data_dir, "warnings")
    return unpack(prepared.open(data_dir, SPLIT), warnings)
