# SPDX-License-Identifier: Apache-2.0
"""The TFDS builder `arc_agi`; prepares and reads without TensorFlow."""

from collections.abc import Sequence

import numpy as np
import tensorflow_datasets as tfds

from ...arc.ids import make_ids
from ...arc.task import read_tasks
from ...errors import DataError
from ..builder import ColumnsBuilder, Contents, Split
from ..reading import PreparedSet
from .columns import COLUMNS, pack
from .names import (
    CUSTOM,
    NAME,
    SPLIT,
    SUBSETS,
    VERSION,
    request,
)


class Builder(ColumnsBuilder):
    """A record for each task: its pairs, and the augmentations of its puzzle ids."""

    VERSION = tfds.core.Version(VERSION)
    BUILDER_CONFIGS = [
        tfds.core.BuilderConfig(name=name) for name in (*SUBSETS, CUSTOM)
    ]
    HOMEPAGE = "https://arcprize.org"

    def prepared_set(self) -> PreparedSet:
        """The same columns for all configs."""
        return PreparedSet(NAME, VERSION, self.builder_config.name, (SPLIT,), COLUMNS)

    def read(
        self,
        *,
        source: str,
        train_subsets: Sequence[str],
        test_subset: str,
        allow_leaks: bool = False,
        num_augmentations: int = 1_000,
        seed: int = 0,
    ) -> Contents:
        """Read the JSON files in folder `source`. Other keys are as in config.data."""
        if num_augmentations < 0 or not 0 <= seed < 2**63:
            raise DataError(
                f"{num_augmentations = }, {seed = }; expected 0 or more, "
                "and 0 to 2**63 - 1"
            )
        tasks = read_tasks(
            source,
            source,
            train_subsets=train_subsets,
            test_subset=test_subset,
            allow_leaks=allow_leaks,
        )
        if not tasks.test:
            raise DataError(f"{source}: no test task; see test_subset")
        records = pack(tasks, make_ids(tasks, num_augmentations, seed))
        columns = {name: np.concatenate([r[name] for r in records]) for name in COLUMNS}
        asked = request(
            train_subsets=train_subsets,
            test_subset=test_subset,
            allow_leaks=allow_leaks,
            num_augmentations=num_augmentations,
            seed=seed,
        )
        facts = {"request": asked, "warnings": tasks.warnings}
        return Contents({SPLIT: Split(columns, records)}, tasks.warnings, facts)
