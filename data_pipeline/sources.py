# SPDX-License-Identifier: Apache-2.0
"""config.data -> puzzles in memory, whatever they come from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_pipeline.arrays import read_arrays
from data_pipeline.errors import DataError
from data_pipeline.hashing import random_bits
from data_pipeline.loader import Augment
from data_pipeline.prepared import open_prepared
from data_pipeline.spec import PuzzleSet, PuzzleSpec
from data_pipeline.sudoku.csv_file import find_duplicates, find_overlap, read_sudoku_csv
from data_pipeline.sudoku.generator import generate
from data_pipeline.sudoku.grid import SudokuShape
from data_pipeline.sudoku.symmetries import sample_symmetries

SOURCES = ("csv", "arrays", "generator", "hub", "prepared")
HUB_REPOSITORY = "sapientinc/sudoku-extreme"
_SUBSET, _TEST_SUBSET = range(2)


class Data(NamedTuple):
    """Training and test puzzles, and what names them exactly."""

    spec: PuzzleSpec
    train: PuzzleSet
    test: PuzzleSet
    augment: Augment | None
    identity: dict[str, Any]  # sizes and SHA-256 of every array
    warnings: list[str]


def spec_of(*, task: str, box_rows: int, box_cols: int, **_: Any) -> PuzzleSpec:
    """The sizes that config.data asks for, without reading anything."""
    return _shape(task, box_rows, box_cols).spec


def load(
    *,
    task: str,
    source: str,
    train: str,
    test: str,
    box_rows: int,
    box_cols: int,
    train_puzzles: int,
    test_puzzles: int,
    clues: tuple[int, int],
    num_augmentations: int,
    seed: int,
) -> Data:
    """Read or make the puzzles and choose the subsets. Raises DataError."""
    shape = _shape(task, box_rows, box_cols)
    if not 0 <= seed < 2**63:
        raise DataError(f"data.seed = {seed}; expected 0 to 2**63 - 1")
    if source in ("hub", "generator") and (train or test):
        raise DataError(
            f"data.source = {source!r} reads no file, but data.train or data.test is "
            "set; did you mean --config.data.source=csv?"
        )
    warnings: list[str] = []
    match source:
        case "generator":
            sets = generate(
                shape, (train_puzzles, test_puzzles), clues=clues, seed=seed
            )
        case "csv" | "hub":
            if source == "hub":
                train, test = hub_file("train.csv"), hub_file("test.csv")
            for key, path in (("train", train), ("test", test)):
                _require(path, key, source)
            sets = read_sudoku_csv(train, shape), read_sudoku_csv(test, shape)
            warnings = [
                *find_duplicates(sets[0], train),
                *find_overlap(*sets, train, test),
            ]
        case "arrays":
            _require(train, "train", source)
            sets = (
                _read_arrays(train, "train", shape),
                _read_arrays(test or train, "test", shape),
            )
        case "prepared":
            _require(train, "train", source)
            sets = (
                open_prepared(train, "train", shape),
                open_prepared(test or train, "test", shape),
            )
        case _:
            raise DataError(
                f"data.source = {source!r}; expected one of {', '.join(SOURCES)}"
            )
    chosen = (
        _choose(sets[0], train_puzzles, seed, _SUBSET, "train_puzzles"),
        _choose(sets[1], test_puzzles, seed, _TEST_SUBSET, "test_puzzles"),
    )
    augment = _augmenter(shape, seed) if num_augmentations else None
    return Data(shape.spec, *chosen, augment, _identity(*chosen), warnings)


def load_test(
    path: str, *, task: str, box_rows: int, box_cols: int, **_: Any
) -> PuzzleSet:
    """All puzzles of one CSV file, or of the test split of an array folder."""
    shape = _shape(task, box_rows, box_cols)
    if (Path(path) / "sudoku_extreme").is_dir():
        return open_prepared(path, "test", shape)
    if Path(path).is_dir():
        return _read_arrays(path, "test", shape)
    return read_sudoku_csv(path, shape)


def hub_file(name: str) -> str:
    """Path of a file of the Sudoku-Extreme set, downloaded or from the hub's cache."""
    advice = (
        "set --config.data.source=csv, --config.data.train=PATH and "
        "--config.data.test=PATH to read files of your own"
    )
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise DataError(
            f"data.source = 'hub' needs the package huggingface_hub "
            f"(pip install 'trm-jax[data]'); or {advice}"
        ) from error
    try:
        return hf_hub_download(HUB_REPOSITORY, name, repo_type="dataset")
    except Exception as error:  # noqa: BLE001  the hub client raises many kinds
        reason = str(error).strip().split("\n")[0]
        raise DataError(
            f"{HUB_REPOSITORY}/{name} cannot be had from the hub "
            f"({type(error).__name__}: {reason}); {advice}"
        ) from error


def _shape(task: str, box_rows: int, box_cols: int) -> SudokuShape:
    if task != "sudoku":
        raise DataError(f"data.task = {task!r}; expected sudoku")
    if (box_rows, box_cols) not in ((2, 2), (2, 3), (3, 3)):
        raise DataError(
            f"data.box_rows x data.box_cols = {box_rows}x{box_cols}; "
            "expected 2x2, 2x3 or 3x3"
        )
    return SudokuShape(box_rows, box_cols)


def _require(path: str, key: str, source: str) -> None:
    if not path:
        raise DataError(
            f"data.{key} is empty; data.source = {source!r} needs "
            f"--config.data.{key}=PATH"
        )


def _read_arrays(folder: str, split: str, shape: SudokuShape) -> PuzzleSet:
    puzzles, spec = read_arrays(folder, split)
    if spec != shape.spec:
        raise DataError(
            f"{folder}/{split}/dataset.json describes {spec}; "
            f"config.data expects {shape.spec}"
        )
    return puzzles


def _choose(
    puzzles: PuzzleSet, count: int, seed: int, draw: int, key: str
) -> PuzzleSet:
    """`count` groups at random, in file order; all for 0."""
    total = len(puzzles.group_starts) - 1
    if not 0 <= count <= total:
        raise DataError(f"data.{key} = {count}; the source holds {total} puzzles")
    if count in (0, total):
        return puzzles
    order = np.argsort(random_bits(seed, draw, np.arange(total)))
    return puzzles.subset(np.sort(order[:count]))


def _augmenter(shape: SudokuShape, seed: int) -> Callable[..., Any]:
    def augment(
        puzzle: np.ndarray, index: np.ndarray, inputs: np.ndarray, labels: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        symmetry = sample_symmetries(shape, seed, puzzle, index)
        return symmetry.apply(inputs), symmetry.apply(labels)

    return augment


def _identity(train: PuzzleSet, test: PuzzleSet) -> dict[str, Any]:
    return {
        name: {"examples": len(puzzles), "sha256": puzzles.digests()}
        for name, puzzles in (("train", train), ("test", test))
    }
