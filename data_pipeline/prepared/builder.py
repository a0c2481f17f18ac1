# SPDX-License-Identifier: Apache-2.0
"""What the TFDS builders have in common; they prepare and read without TensorFlow."""

import abc
import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from ..errors import DataError
from ..settings import DataSettings
from ..tasks import load
from .reading import Column, PreparedSet, column_digests, puzzle_arrays

SOURCES = ("hub", "csv", "generator")  # of puzzles
BLOCK_ROWS = 4096  # puzzles per record; single puzzles would be read 10x slower
_COMMON = {f.name for f in dataclasses.fields(DataSettings)}
_COMMON -= {"task", "num_augmentations"}

Arrays = dict[str, np.ndarray]


class Split(NamedTuple):
    """The columns of a split, and the same columns cut into records."""

    columns: Arrays
    records: Iterable[Arrays]


class Contents(NamedTuple):
    """What is to be stored."""

    splits: dict[str, Split]
    warnings: list[str]  # about the source
    facts: dict[str, Any]  # for metadata.json


class ColumnsBuilder(tfds.core.GeneratorBasedBuilder):
    """Stores columns in the order of their source, and their SHA-256."""

    HOMEPAGE: str

    def __init__(
        self,
        *,
        data_dir: Any = None,
        config: Any = None,
        version: Any = None,
        **source: Any,
    ) -> None:
        """`source` holds the arguments of `read`. TFDS defines the others."""
        self._source = source
        self.warnings: list[str] = []  # about the source, after preparing
        super().__init__(
            file_format="array_record",
            data_dir=data_dir,
            config=config,
            version=version,
        )

    @abc.abstractmethod
    def prepared_set(self) -> PreparedSet:
        """What the chosen config stores."""

    @abc.abstractmethod
    def read(self, *_: Any, **source: Any) -> Contents:
        """Reads or makes what is to be stored. Raises DataError."""

    def _info(self) -> tfds.core.DatasetInfo:
        columns = self.prepared_set().columns
        features = {name: _rows_of(column) for name, column in columns.items()}
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            homepage=self.HOMEPAGE,
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
        del dl_manager  # the hub's client keeps its own cache
        contents = self.read(**self._source)
        self.warnings = contents.warnings
        self.info.metadata.update(contents.facts)
        self.info.metadata["sha256"] = {
            name: column_digests(split.columns)
            for name, split in contents.splits.items()
        }
        return {
            name: self._generate_examples(split.records)
            for name, split in contents.splits.items()
        }

    def _generate_examples(
        self, records: Iterable[Arrays]
    ) -> Iterator[tuple[int, Arrays]]:
        yield from enumerate(records)


class PuzzleBuilder(ColumnsBuilder):
    """Blocks of puzzles from the hub, from CSV files or from a generator."""

    TASK: str

    @abc.abstractmethod
    def sizes(self) -> dict[str, Any]:
        """Keys of the task's section that follow from the chosen config."""

    def read(self, **source: Any) -> Contents:
        """Read or make puzzles by keys of config.data and of the generator.

        Without the key `source` they come from the hub. Raises DataError.
        """
        keys = {"source": "hub", **source}
        if keys["source"] not in SOURCES:
            expected = f"expected one of {', '.join(SOURCES)}"
            raise DataError(f"source = {keys['source']!r}; {expected}")
        common = {key: keys.pop(key) for key in _COMMON & keys.keys()}
        section = keys | self.sizes()
        data = load({"task": self.TASK, **common, self.TASK: section})
        splits = {}
        for name, puzzles in (("train", data.train), ("test", data.test.puzzles)):
            columns = puzzle_arrays(puzzles)
            splits[name] = Split(columns, _blocks(columns, len(puzzles)))
        return Contents(splits, data.warnings, {})


def _blocks(columns: Arrays, num_rows: int) -> Iterator[Arrays]:
    for first in range(0, num_rows, BLOCK_ROWS):
        rows = slice(first, first + BLOCK_ROWS)
        yield {name: array[rows] for name, array in columns.items()}


def _rows_of(column: Column) -> tfds.features.Tensor:
    """The TFDS feature for any number of rows of a column."""
    return tfds.features.Tensor(
        shape=(None, *column.shape), dtype=column.dtype, encoding="bytes"
    )
