# SPDX-License-Identifier: Apache-2.0
"""The TFDS builder `sudoku_extreme`; prepares and reads without TensorFlow."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from data_pipeline.errors import DataError
from data_pipeline.prepared import SHAPES, VERSION, column_digests, columns
from data_pipeline.sources import HUB_REPOSITORY, load
from data_pipeline.spec import PuzzleSet

SOURCES = ("hub", "csv", "generator")
BLOCK_ROWS = 4096  # puzzles per record: a record of one puzzle is read 10x slower


class Builder(tfds.core.GeneratorBasedBuilder):
    """Blocks of Sudoku puzzles in the order of their source."""

    VERSION = tfds.core.Version(VERSION)
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in SHAPES]

    def __init__(
        self,
        *,
        source: str = "hub",
        train: str = "",
        test: str = "",
        train_puzzles: int = 0,
        test_puzzles: int = 0,
        clues: Sequence[int] = (0, 0),
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        """The source, as in config.data; `kwargs` (data_dir, config) are TFDS's."""
        if source not in SOURCES:
            raise DataError(
                f"source = {source!r}; expected one of {', '.join(SOURCES)}"
            )
        self._source: dict[str, Any] = {
            "source": source,
            "train": train,
            "test": test,
            "train_puzzles": train_puzzles,
            "test_puzzles": test_puzzles,
            "clues": tuple(clues),
            "seed": seed,
        }
        self.warnings: list[str] = []  # about the puzzles, after preparing
        super().__init__(file_format="array_record", **kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        num_cells = SHAPES[self.builder_config.name].num_cells
        features = {
            "inputs": _blocks_of((num_cells,), np.uint8),
            "labels": _blocks_of((num_cells,), np.uint8),
            "rating": _blocks_of((), np.int64),
            "clues": _blocks_of((), np.int64),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            homepage=f"https://huggingface.co/datasets/{HUB_REPOSITORY}",
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[Any]]:
        del dl_manager  # the hub's client keeps its own cache
        shape = SHAPES[self.builder_config.name]
        data = load(
            task="sudoku",
            box_rows=shape.box_rows,
            box_cols=shape.box_cols,
            num_augmentations=0,
            **self._source,
        )
        self.warnings = data.warnings
        splits = {"train": data.train, "test": data.test}
        self.info.metadata["sha256"] = {
            name: column_digests(columns(puzzles)) for name, puzzles in splits.items()
        }
        return {
            name: self._generate_examples(puzzles) for name, puzzles in splits.items()
        }

    def _generate_examples(
        self, puzzles: PuzzleSet
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        arrays = columns(puzzles)
        for first in range(0, len(puzzles), BLOCK_ROWS):
            rows = slice(first, first + BLOCK_ROWS)
            yield first, {name: array[rows] for name, array in arrays.items()}


def _blocks_of(shape: tuple[int, ...], dtype: type) -> tfds.features.Tensor:
    """Rows of a column, as many as the block has."""
    return tfds.features.Tensor(shape=(None, *shape), dtype=dtype, encoding="bytes")
