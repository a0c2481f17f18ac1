# SPDX-License-Identifier: Apache-2.0
"""PreparedSet: opens the data sets that `writing` has stored.

A prepared folder is a TFDS folder (array_record) whose metadata.json holds the SHA-256
of every column. When it is first opened, its records are stacked into .npy files under
cache/. Later these files are mapped, which does not need TFDS. The SHA-256 is compared
each time: a cache that differs is built again from the records, and records that differ
are refused.
"""

import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..arrays import read_npy
from ..errors import DataError
from ..json_files import as_object, item, read_json
from ..spec import PuzzleSet, array_digest

NEEDS_TFDS = "needs more packages (pip install 'trm-jax[data]')"
_ORIGIN = "not prepared by this project, or damaged"
_ANEW = "remove the folder and prepare it again"


class Column(NamedTuple):
    """A stored column: the type and the shape of one of its rows."""

    dtype: type
    shape: tuple[int, ...] = ()  # of one row


@dataclasses.dataclass(frozen=True)
class PreparedSet:
    """A data set: the names that TFDS gives its folders, and what it stores."""

    name: str  # prepared.<name>.prepare prepares it
    version: str
    config: str
    splits: tuple[str, ...]
    columns: Mapping[str, Column]

    def folder(self, data_dir: str | pathlib.Path) -> pathlib.Path:
        """The folder of the data set, by the conventions of TFDS."""
        root = pathlib.Path(data_dir).expanduser()
        return root / self.name / self.config / self.version

    def unfinished(self, data_dir: str | pathlib.Path) -> list[pathlib.Path]:
        """Folders that killed preparations have left behind."""
        folder = self.folder(data_dir)
        return sorted(folder.parent.glob(f"incomplete.*_{folder.name}"))

    def open(self, data_dir: str | pathlib.Path, split: str) -> dict[str, np.ndarray]:
        """All columns of a split, in the order of their source, mapped into memory.

        Raises DataError.
        """
        folder = self.folder(data_dir)
        digests = self.recorded(data_dir, "sha256", split)
        if not isinstance(digests, dict) or digests.keys() != self.columns.keys():
            problem = f"sha256: {split}: does not name the columns"
            path = folder / "metadata.json"
            raise DataError(f"{path}: {problem}; {_ORIGIN}: {_ANEW}")
        arrays = self._read_cache(folder, split, digests)
        if arrays is None:
            stacked = _stack_records(folder, split)
            if column_digests(stacked) != digests:
                raise DataError(
                    f"{folder}: records of split {split} differ from metadata.json "
                    f"(SHA-256); {_ANEW}"
                )
            _write_cache(folder, split, stacked)
            arrays = self._read_cache(folder, split, digests)
        if arrays is None:
            written = folder / "cache"
            raise DataError(f"{written}: was just written, but reads back differently")
        return arrays

    def open_puzzles(self, data_dir: str | pathlib.Path, split: str) -> PuzzleSet:
        """All puzzles of a split that has the columns of `puzzle_columns`."""
        return PuzzleSet.of_single_examples(**self.open(data_dir, split))

    def recorded(self, data_dir: str | pathlib.Path, *keys: str) -> Any:
        """An entry of metadata.json. Raises DataError."""
        folder = self.folder(data_dir)
        if not folder.is_dir():
            unfinished = "".join(
                f"; unfinished: {path}" for path in self.unfinished(data_dir)
            )
            raise DataError(
                f"{folder}: no such folder{unfinished}; "
                f"run python -m {__package__}.{self.name}.prepare"
            )
        path = folder / "metadata.json"
        try:
            entry = read_json(path)
            for place, key in enumerate(keys):
                where = ": ".join([str(path), *keys[:place]])
                entry = item(as_object(entry, where, "object"), key, where)
        except DataError as error:
            raise DataError(f"{error}; {_ORIGIN}: {_ANEW}") from None
        return entry

    def _read_cache(
        self, folder: pathlib.Path, split: str, digests: dict[str, str]
    ) -> dict[str, np.ndarray] | None:
        """The columns, mapped. None if one is missing, damaged or differs."""
        try:
            arrays = {
                name: read_npy(
                    _cache_file(folder, split, name),
                    "any shape",
                    1 + len(self.columns[name].shape),
                )
                for name in digests
            }
        except DataError:
            return None
        return arrays if column_digests(arrays) == digests else None


def puzzle_columns(num_cells: int, *attributes: str) -> dict[str, Column]:
    """The columns of a PuzzleSet of single examples."""
    grids = dict.fromkeys(("inputs", "labels"), Column(np.uint8, (num_cells,)))
    return grids | dict.fromkeys(attributes, Column(np.int64))


def puzzle_arrays(puzzles: PuzzleSet) -> dict[str, np.ndarray]:
    """The arrays for `puzzle_columns`, `n` rows each."""
    return {"inputs": puzzles.inputs, "labels": puzzles.labels, **puzzles.attributes}


def column_digests(arrays: dict[str, np.ndarray]) -> dict[str, str]:
    """SHA-256 of every array, as recorded in metadata.json."""
    return {name: array_digest(array) for name, array in arrays.items()}


def _cache_file(folder: pathlib.Path, split: str, name: str) -> pathlib.Path:
    return folder / "cache" / f"{split}_{name}.npy"


def _write_cache(
    folder: pathlib.Path, split: str, arrays: dict[str, np.ndarray]
) -> None:
    """Write each file elsewhere and rename it: other processes may open the cache."""
    try:
        with tempfile.TemporaryDirectory(dir=folder, prefix="incomplete.") as partial:
            for name, array in arrays.items():
                target = _cache_file(folder, split, name)
                source = pathlib.Path(partial) / target.name
                np.save(source, array, allow_pickle=False)
                target.parent.mkdir(exist_ok=True)
                os.replace(source, target)
    except OSError as error:
        raise DataError(
            f"{folder / 'cache'}: cannot be written: {error.strerror}"
        ) from error


def _stack_records(folder: pathlib.Path, split: str) -> dict[str, np.ndarray]:
    try:
        import array_record  # noqa: F401  TFDS imports it late
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise DataError(
            f"{folder}: to stack its records {NEEDS_TFDS}: {error}"
        ) from error
    try:
        records = tfds.builder_from_directory(folder).as_data_source(split)
        blocks = [records[i] for i in range(len(records))]
        return {
            name: np.concatenate([block[name] for block in blocks])
            for name in blocks[0]
        }
    except Exception as error:  # noqa: BLE001  TFDS and array_record raise many kinds
        reason = f"{type(error).__name__}: {error}"
        raise DataError(
            f"{folder}: records of split {split} cannot be read ({reason}); {_ANEW}"
        ) from error
