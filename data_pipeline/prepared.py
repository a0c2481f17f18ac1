# SPDX-License-Identifier: Apache-2.0
"""Opens puzzles that `data_pipeline.sudoku_extreme.prepare` has stored.

The prepared folder is a TFDS one (array_record) and holds the SHA-256 of every array in
its metadata.json. The first opening stacks the records into .npy files under cache/;
later ones map these, without TFDS. Each opening compares the SHA-256: a cache that
differs is built anew from the records, records that differ are refused.
"""

import json
import os
import pathlib
import tempfile

import numpy as np

from data_pipeline.arrays import read_npy
from data_pipeline.errors import DataError
from data_pipeline.spec import PuzzleSet, array_digest
from data_pipeline.sudoku.grid import SudokuShape

NAME = "sudoku_extreme"
VERSION = "1.0.0"
_GRIDS = ("inputs", "labels")  # two axes, the others one
SHAPES = {
    f"boxes_{rows}x{cols}": SudokuShape(rows, cols)
    for rows, cols in ((3, 3), (2, 3), (2, 2))
}
DEFAULT_SHAPE = SHAPES["boxes_3x3"]
NEEDS_TFDS = "takes more packages (pip install 'trm-jax[data]')"


def prepared_folder(
    data_dir: str | pathlib.Path, shape: SudokuShape = DEFAULT_SHAPE
) -> pathlib.Path:
    """Where the puzzles of a shape lie, by the conventions of TFDS."""
    name = f"boxes_{shape.box_rows}x{shape.box_cols}"
    if name not in SHAPES:
        raise DataError(f"{shape} cannot be prepared; expected {', '.join(SHAPES)}")
    return pathlib.Path(data_dir).expanduser() / NAME / name / VERSION


def unfinished_folders(folder: pathlib.Path) -> list[pathlib.Path]:
    """What preparations of `folder` that were killed have left behind."""
    return sorted(folder.parent.glob(f"incomplete.*_{folder.name}"))


def columns(puzzles: PuzzleSet) -> dict[str, np.ndarray]:
    """The arrays that are stored, `n` rows each."""
    return {"inputs": puzzles.inputs, "labels": puzzles.labels, **puzzles.attributes}


def column_digests(arrays: dict[str, np.ndarray]) -> dict[str, str]:
    """SHA-256 of every array, as recorded in metadata.json."""
    return {name: array_digest(array) for name, array in arrays.items()}


def open_prepared(
    data_dir: str | pathlib.Path, split: str, shape: SudokuShape = DEFAULT_SHAPE
) -> PuzzleSet:
    """All puzzles of a split, in the order of their source, mapped into memory."""
    folder = prepared_folder(data_dir, shape)
    digests = _recorded_digests(folder, split)
    arrays = _read_cache(folder, split, digests)
    if arrays is None:
        stacked = _stack_records(folder, split)
        if column_digests(stacked) != digests:
            raise DataError(
                f"{folder}: records of split {split} differ from metadata.json "
                "(SHA-256); remove the folder and prepare it anew"
            )
        _write_cache(folder, split, stacked)
        arrays = _read_cache(folder, split, digests)
    if arrays is None:
        raise DataError(f"{folder / 'cache'}: just written, but reads back differently")
    return PuzzleSet.of_single_examples(**arrays)


def _recorded_digests(folder: pathlib.Path, split: str) -> dict[str, str]:
    if not folder.is_dir():
        unfinished = "".join(
            f"; unfinished: {path}" for path in unfinished_folders(folder)
        )
        raise DataError(
            f"{folder}: no such folder{unfinished}; "
            "run python -m data_pipeline.sudoku_extreme.prepare"
        )
    path = folder / "metadata.json"
    try:
        digests = dict(json.loads(path.read_text())["sha256"][split])
        if not digests.keys() >= set(_GRIDS):
            raise KeyError(*_GRIDS)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path}: no SHA-256 of split {split!r} "
            f"({type(error).__name__}: {error}); not prepared by this project, "
            "or damaged: remove the folder and prepare it anew"
        ) from None
    return digests


def _cache_file(folder: pathlib.Path, split: str, name: str) -> pathlib.Path:
    return folder / "cache" / f"{split}_{name}.npy"


def _read_cache(
    folder: pathlib.Path, split: str, digests: dict[str, str]
) -> dict[str, np.ndarray] | None:
    """The arrays, mapped; None if one is missing, damaged or of other content."""
    try:
        arrays = {
            name: read_npy(_cache_file(folder, split, name), "any shape", ndim)
            for name, ndim in ((n, 2 if n in _GRIDS else 1) for n in digests)
        }
    except DataError:
        return None
    return arrays if column_digests(arrays) == digests else None


def _write_cache(
    folder: pathlib.Path, split: str, arrays: dict[str, np.ndarray]
) -> None:
    """Each file appears whole, by renaming: other processes may open them meanwhile."""
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
            f"{folder}: records of split {split} cannot be read ({reason}); "
            "remove the folder and prepare it anew"
        ) from error
