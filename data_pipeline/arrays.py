# SPDX-License-Identifier: Apache-2.0
"""The array layout published with HRM and TRM: `<split>/<set>__*.npy`, dataset.json."""

import math
import pathlib
import re
import tokenize
from typing import Any, Literal

import numpy as np
from numpy.lib import format as npy

from .errors import DataError
from .json_files import as_object, item, kind_of, read_json
from .spec import BLANK_PUZZLE_ID, PAD_ID, PuzzleSet, PuzzleSpec
from .text_files import shorten

# Tokens are kept as uint8, puzzle ids as int32.
_LARGEST = {"vocab_size": 256, "seq_len": 2**31, "num_puzzle_identifiers": 2**31}
_FIXED = {"pad_id": PAD_ID, "blank_identifier_id": BLANK_PUZZLE_ID}
_HEADER_READERS = {
    (1, 0): npy.read_array_header_1_0,
    (2, 0): npy.read_array_header_2_0,
}
# What NumPy's parser raises for a damaged header; KeyError: an unknown version.
_HEADER_ERRORS = (ValueError, TypeError, KeyError, SyntaxError, tokenize.TokenError)


def read_arrays(folder: str | pathlib.Path, split: str) -> tuple[PuzzleSet, PuzzleSpec]:
    """A split with its sets in the order of dataset.json, and the sizes in that file.

    Tokens that are stored as uint8 stay on disk, mapped into memory.
    """
    base = pathlib.Path(folder) / split
    if not base.is_dir():
        raise DataError(f"{base}: not found, or not a folder")
    meta = _read_meta(base / "dataset.json")
    puzzles = _join([_read_set(base, name, meta) for name in meta["sets"]])
    length, side = meta["seq_len"], math.isqrt(meta["seq_len"])
    grid_shape = (side, side) if side**2 == length else (1, length)
    num_puzzles = meta["num_puzzle_identifiers"]
    return puzzles, PuzzleSpec(meta["vocab_size"], grid_shape, num_puzzles)


def _read_meta(path: pathlib.Path) -> dict[str, Any]:
    meta = as_object(read_json(path), str(path), "object")
    for key in (*_LARGEST, *_FIXED, "ignore_label_id", "sets"):
        item(meta, key, str(path))
    # If ignore_label_id is null, every label counts.
    ignore = () if meta["ignore_label_id"] is None else ("ignore_label_id",)
    for key in (*_LARGEST, *_FIXED, *ignore):
        if type(meta[key]) is not int:
            found = kind_of(meta[key])
            raise DataError(f"{path}: {key}: {found} found, whole number expected")
    for key, largest in _LARGEST.items():
        if not 1 <= meta[key] <= largest:
            raise DataError(f"{path}: {key} is {meta[key]}, 1 to {largest} expected")
    for key, value in _FIXED.items():
        if meta[key] != value:
            raise DataError(f"{path}: {key} is {meta[key]}, only {value} is supported")
    _check_set_names(path, meta["sets"])
    return meta


def _check_set_names(path: pathlib.Path, names: Any) -> None:
    if not isinstance(names, list) or not names:
        raise DataError(f"{path}: sets: a list of names expected")
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+", name):
            raise DataError(f"{path}: sets: {shorten(str(name))} is no file name")
    if len(set(names)) < len(names):
        raise DataError(f"{path}: sets: a name appears twice")


def _read_set(base: pathlib.Path, name: str, meta: dict[str, Any]) -> PuzzleSet:
    prefix = f"{base / name}__"
    paths = {
        part: pathlib.Path(f"{prefix}{part}.npy")
        for part in (
            "inputs",
            "labels",
            "puzzle_indices",
            "group_indices",
            "puzzle_identifiers",
        )
    }
    inputs = _read_rows(paths["inputs"], meta["seq_len"])
    labels = _read_rows(paths["labels"], meta["seq_len"])
    _check_same_length(paths["inputs"], inputs, paths["labels"], labels)
    puzzle_starts = _read_starts(paths["puzzle_indices"], len(inputs), "rows")
    ids = read_npy(paths["puzzle_identifiers"], "(puzzles,)", 1)
    puzzle_ends = puzzle_starts[1:]
    _check_same_length(
        paths["puzzle_identifiers"], ids, paths["puzzle_indices"], puzzle_ends
    )
    group_starts = _read_starts(paths["group_indices"], len(ids), "puzzles")
    _check_group_sizes(paths["puzzle_indices"], puzzle_starts, group_starts)
    _check_range(paths["puzzle_identifiers"], ids, "num_puzzle_identifiers", meta)
    _check_range(paths["inputs"], inputs, "vocab_size", meta)
    labels = _without_ignored(paths["labels"], labels, meta["ignore_label_id"])
    _check_range(paths["labels"], labels, "vocab_size", meta)
    return PuzzleSet(
        inputs.astype(np.uint8, order="C", copy=False),
        labels.astype(np.uint8, order="C", copy=False),
        puzzle_starts,
        group_starts,
        ids.astype(np.int32),
        {},
    )


def _join(sets: list[PuzzleSet]) -> PuzzleSet:
    """The sets one after the other."""
    first, *others = sets
    for other in others:
        first = PuzzleSet(
            np.concatenate([first.inputs, other.inputs]),
            np.concatenate([first.labels, other.labels]),
            _append(first.puzzle_starts, other.puzzle_starts),
            _append(first.group_starts, other.group_starts),
            np.concatenate([first.puzzle_ids, other.puzzle_ids]),
            {},
        )
    return first


def _append(starts: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.concatenate([starts, starts[-1] + others[1:]])


def _without_ignored(
    path: pathlib.Path, labels: np.ndarray, ignore: int | None
) -> np.ndarray:
    """Replace `ignore` by PAD_ID. Raises DataError if PAD_ID itself is a label."""
    if ignore == PAD_ID:
        return labels
    for row, position in np.argwhere(labels == PAD_ID)[:1] + 1:
        problem = f"value {PAD_ID} is a label here, as ignore_label_id is {ignore}"
        raise DataError(
            f"{path}: row {row}, position {position}: {problem}; "
            f"only labels of 1 and above are supported"
        )
    return labels if ignore is None else np.where(labels == ignore, PAD_ID, labels)


def _check_same_length(
    path: pathlib.Path, array: np.ndarray, other_path: pathlib.Path, other: np.ndarray
) -> None:
    if len(array) != len(other):
        counts = f"{len(array)} rows, but {other_path.name} {len(other)} rows"
        raise DataError(f"{path}: {counts}")


def _check_range(
    path: pathlib.Path, array: np.ndarray, key: str, meta: dict[str, Any]
) -> None:
    if array.min() >= 0 and array.max() < meta[key]:
        return
    where = np.argwhere((array < 0) | (array >= meta[key]))[0]
    axes = zip(("row", "position"), where + 1, strict=False)
    place = ", ".join(f"{axis} {index}" for axis, index in axes)
    raise DataError(f"{path}: {place}: value {array[tuple(where)]}, {key} {meta[key]}")


def _check_group_sizes(
    path: pathlib.Path, puzzle_starts: np.ndarray, group_starts: np.ndarray
) -> None:
    """Raise DataError unless each group's puzzles have equally many examples.

    Otherwise the length of an epoch would depend on which puzzles the loader draws.
    """
    sizes = np.diff(puzzle_starts)
    expected = np.repeat(sizes[group_starts[:-1]], np.diff(group_starts))
    for puzzle in np.flatnonzero(sizes != expected)[:1]:
        counts = f"{sizes[puzzle]} examples, {expected[puzzle]} expected"
        raise DataError(
            f"{path}: puzzle {puzzle + 1}: {counts}: "
            "all puzzles of a group must hold equally many"
        )


def _read_rows(path: pathlib.Path, seq_len: int) -> np.ndarray:
    array = read_npy(path, f"(rows, {seq_len})", 2)
    if array.shape[1] != seq_len:
        found = f"rows of {array.shape[1]} found"
        raise DataError(f"{path}: {found}, {seq_len} expected (seq_len)")
    if not len(array):
        raise DataError(f"{path}: 0 rows")
    return array


def _read_starts(path: pathlib.Path, count: int, unit: str) -> np.ndarray:
    starts = read_npy(path, f"({unit} + 1,)", 1)
    if not len(starts) or starts[0] != 0:
        raise DataError(f"{path}: does not begin with 0")
    for index in np.flatnonzero(starts[1:] <= starts[:-1])[:1]:
        problem = f"{starts[index + 1]} after {starts[index]}, not increasing"
        raise DataError(f"{path}: position {index + 2}: {problem}")
    if starts[-1] != count:
        raise DataError(f"{path}: ends at {starts[-1]}, but there are {count} {unit}")
    return starts.astype(np.int64)


def read_npy(path: pathlib.Path, expected: str, ndim: int) -> np.ndarray:
    """An array of whole numbers, mapped into memory. Nothing is ever unpickled."""
    try:
        with open(path, "rb") as file:
            read_header = _HEADER_READERS[npy.read_magic(file)]
            shape, is_fortran, dtype = read_header(file)
            start, size = file.tell(), file.seek(0, 2)
    except FileNotFoundError:
        raise DataError(f"{path}: not found") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    except (*_HEADER_ERRORS, MemoryError, RecursionError) as error:
        raise DataError(f"{path}: not a readable .npy file: {error}") from None
    if dtype.hasobject:
        raise DataError(f"{path}: object array, refused (it would need unpickling)")
    if dtype.kind not in "iu":
        raise DataError(f"{path}: dtype {dtype}; a whole-number dtype is expected")
    if len(shape) != ndim or min(shape) < 0:
        raise DataError(f"{path}: shape {shape}, {expected} expected")
    needed = math.prod(shape) * dtype.itemsize
    if size - start < needed:
        problem = f"shorter than its header says ({size - start} of {needed} bytes)"
        raise DataError(f"{path}: {problem}")
    if not needed:
        return np.empty(shape, dtype)
    order: Literal["C", "F"] = "F" if is_fortran else "C"
    return np.asarray(np.memmap(path, dtype, "r", start, shape, order))
