# SPDX-License-Identifier: Apache-2.0
"""Make Data from config.data. PuzzleTask has what all kinds of puzzle share."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .arrays import read_arrays
from .errors import DataError
from .hashing import random_bits
from .hub import hub_file
from .kept import Choice, kept
from .prepared.reading import PreparedSet
from .questions import EvalSet
from .repeats import find_duplicates, find_overlap
from .settings import DataSettings, read, task_module
from .spec import PAD_ID, PuzzleSet, PuzzleSpec
from .variants import SingleForm, Variants
from .written import WrittenPuzzle

MAX_GENERATED = 10_000_000  # puzzles of one split, which takes hours
TRAIN, TEST = range(2)  # keys of the two draws


class Data(NamedTuple):
    """Training and test puzzles, and the digests that identify them."""

    spec: PuzzleSpec
    train: PuzzleSet
    train_variants: Variants
    test: EvalSet
    identity: dict[str, Any]  # sizes and SHA-256 of every array
    warnings: list[str]


class PuzzleTask(WrittenPuzzle):
    """A kind of puzzle with its settings.

    A subclass lists its sources in SOURCES. "generator" needs the method `generate`,
    "csv" and "hub" need `read_csv`, "prepared" needs `prepared`, "arrays" needs none.
    """

    SOURCES: tuple[str, ...] = ("arrays", "generator")
    HUB = ""  # the repository of train.csv and test.csv
    # The version of `read_csv`: increase it when it returns other puzzles for a file.
    # Puzzles chosen from large files are kept for the next start, except at 0.
    CSV_VERSION = 0
    MAX_AUGMENTATIONS: int | None = 0  # None: any number
    NUM_TEST_FORMS = 1  # of each test puzzle, for votes; includes the puzzle itself

    def __init__(self, common: DataSettings, settings: Any) -> None:
        self.common, self.settings = common, settings
        most = self.MAX_AUGMENTATIONS
        if most is not None and common.num_augmentations > most:
            raise DataError(
                f"data.num_augmentations = {common.num_augmentations}; a puzzle of "
                f"task {common.task!r} has {most}"
            )

    def generate(self) -> tuple[PuzzleSet, PuzzleSet]:
        """New training and test puzzles."""
        raise NotImplementedError

    def read_csv(self, path: str | Path) -> PuzzleSet:
        """All puzzles of a CSV file."""
        raise NotImplementedError

    def prepared(self) -> PreparedSet | None:
        """The prepared data set of these settings."""
        return None

    def variants(self, puzzles: PuzzleSet, num_forms: int) -> Variants:
        """The first `num_forms` forms of each puzzle."""
        del num_forms
        return SingleForm(len(puzzles.puzzle_ids))

    def eval_set(self, puzzles: PuzzleSet) -> EvalSet:
        """Puzzles to be solved. A task may add how answers are judged."""
        return EvalSet(puzzles, self.variants(puzzles, self.NUM_TEST_FORMS))

    def pose(self, inputs: np.ndarray, name: str | None = None) -> EvalSet:
        """Questions `n m` without labels. `name` is for tasks with puzzle ids."""
        if name is not None:
            raise DataError(f"task {name!r}: puzzles of this kind have no names")
        unknown = np.full_like(inputs, PAD_ID)
        return self.eval_set(PuzzleSet.of_single_examples(inputs, unknown))

    def warnings(self, train: PuzzleSet) -> list[str]:
        """Warnings about all training puzzles of the source, chosen or not."""
        del train
        return []

    def load(self) -> Data:
        """Read or make the puzzles and choose the subsets. Raises DataError."""
        common, spec = self.common, self.spec()
        train, test, warnings = self._choice()
        more = common.num_augmentations
        single = SingleForm(len(train.puzzle_ids))
        return Data(
            spec,
            train,
            self.variants(train, 1 + more) if more else single,
            self.eval_set(test),
            identity(spec, train, test),
            warnings,
        )

    def load_test(self, path: str) -> EvalSet:
        """All test puzzles of a prepared folder, of an array folder, or of a file."""
        prepared = self.prepared()
        if prepared and (Path(path) / prepared.name).is_dir():
            return self.eval_set(prepared.open_puzzles(path, "test"))
        if Path(path).is_dir() or "csv" not in self.SOURCES:
            return self.eval_set(_read_arrays(path, "test", self.spec()))
        return self.eval_set(self.read_csv(path))

    def _choice(self) -> Choice:
        """The chosen puzzles, and warnings about all puzzles of the source."""
        source, train, test = self.common.source, self.common.train, self.common.test
        if source in ("generator", "hub"):
            if train or test:
                raise DataError(
                    f"data.source = {source!r} reads no file, but data.train or "
                    "data.test is set; did you mean --config.data.source=csv?"
                )
            if source == "generator":
                return self._chosen(*self._generated())
            files = [hub_file(self.HUB, f"{split}.csv") for split in ("train", "test")]
            train, test = files
        require(train, "train", source)
        if source in ("csv", "hub"):
            require(test, "test", source)
            return self._of_csv(train, test)
        if source == "prepared" and (prepared := self.prepared()):
            folders = {"train": train, "test": test or train}
            first, second = (prepared.open_puzzles(folders[s], s) for s in folders)
        else:
            first = _read_arrays(train, "train", self.spec())
            second = _read_arrays(test or train, "test", self.spec())
        return self._chosen(first, second)

    def _of_csv(self, train: str, test: str) -> Choice:
        """The choice from two files, which is kept if they are large."""

        def choose() -> Choice:
            sets = self.read_csv(train), self.read_csv(test)
            doubts = find_duplicates(sets[0], "{train}")
            return self._chosen(
                *sets, doubts + find_overlap(*sets, "{train}", "{test}")
            )

        # The content of the files counts, not their place; the suffix may be .gz.
        suffixes = {"train": Path(train).suffix, "test": Path(test).suffix}
        common = dataclasses.asdict(self.common) | suffixes
        settings = [self.CSV_VERSION, common, dataclasses.asdict(self.settings)]
        found = kept((train, test), settings, choose) if self.CSV_VERSION else choose()
        warnings = [
            text.replace("{train}", train).replace("{test}", test)
            for text in found.warnings
        ]
        return found._replace(warnings=warnings)

    def _chosen(
        self, train: PuzzleSet, test: PuzzleSet, doubts: Sequence[str] = ()
    ) -> Choice:
        """Subsets of the sizes that are asked for, with all warnings."""
        common, warnings = self.common, [*doubts, *self.warnings(train)]
        train = _subset(train, common.train_puzzles, common.seed, TRAIN)
        test = _subset(test, common.test_puzzles, common.seed, TEST)
        return Choice(train, test, warnings)

    def _generated(self) -> tuple[PuzzleSet, PuzzleSet]:
        for key in ("train_puzzles", "test_puzzles"):
            if not 1 <= (count := getattr(self.common, key)) <= MAX_GENERATED:
                allowed = f"1 to {MAX_GENERATED:,}"
                raise DataError(f"data.{key} = {count}; the generator makes {allowed}")
        return self.generate()


def spec_of(data: Mapping[str, Any]) -> PuzzleSpec:
    """The sizes that config.data implies. ARC's files are read to count the ids."""
    return task_of(data).spec()


def load(data: Mapping[str, Any]) -> Data:
    """Read or make the puzzles and choose the subsets. Raises DataError."""
    return task_of(data).load()


def load_test(path: str, data: Mapping[str, Any]) -> EvalSet:
    """All test puzzles of a file or folder of the user's own."""
    return task_of(data).load_test(path)


def require(path: str, key: str, source: str) -> None:
    """Raise DataError if `path`, the value of config.data.`key`, is empty."""
    if not path:
        raise DataError(
            f"data.{key} is empty; data.source = {source!r} needs "
            f"--config.data.{key}=PATH"
        )


def chosen(total: int, count: int, seed: int, draw: int) -> np.ndarray:
    """`count` numbers below `total`, drawn and sorted; all for 0. Raises DataError."""
    if count > total:
        key = ("train_puzzles", "test_puzzles")[draw]
        raise DataError(f"data.{key} = {count}; the source holds {total} puzzles")
    order = np.argsort(random_bits(seed, draw, np.arange(total)))
    return np.sort(order[: count or total])


def identity(spec: PuzzleSpec, train: PuzzleSet, test: PuzzleSet) -> dict[str, Any]:
    """Sizes, numbers of examples and SHA-256 of the arrays."""
    sets = {
        name: {"examples": len(puzzles), "sha256": puzzles.digests()}
        for name, puzzles in (("train", train), ("test", test))
    }
    return {"sizes": spec.sizes, **sets}


def task_of(data: Mapping[str, Any]) -> PuzzleTask:
    """The task that config.data describes. Raises DataError."""
    common, settings = read(data)
    return task_module(common.task).Task(common, settings)


def _read_arrays(folder: str, split: str, spec: PuzzleSpec) -> PuzzleSet:
    """One split of an array folder, which must have the sizes of config.data."""
    puzzles, found = read_arrays(folder, split)
    # dataset.json records neither the blank token, nor boxes, nor a rectangle's sides.
    expected = dataclasses.replace(spec, blank=None, box_shape=None)
    same = dataclasses.replace(found, grid_shape=spec.grid_shape) == expected
    if not same or found.num_cells != spec.num_cells:
        raise DataError(
            f"{folder}/{split}/dataset.json describes {found}; "
            f"config.data expects {expected}"
        )
    return puzzles


def _subset(puzzles: PuzzleSet, count: int, seed: int, draw: int) -> PuzzleSet:
    total = len(puzzles.group_starts) - 1
    groups = chosen(total, count, seed, draw)
    # If all are chosen, nothing is copied, so that mapped arrays stay on disk.
    return puzzles if len(groups) == total else puzzles.subset(groups)
