# SPDX-License-Identifier: Apache-2.0
"""The task "arc": tasks of ARC-AGI and ConceptARC."""

import dataclasses
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..arrays import read_arrays
from ..drawing import Look
from ..errors import DataError
from ..prepared.arc_agi.names import open_prepared
from ..questions import EvalSet
from ..settings import knob
from ..spec import PAD_ID, PuzzleSet, PuzzleSpec
from ..tasks import TEST, TRAIN, Data, PuzzleTask, chosen, identity, require
from .bundles import find_subsets
from .grids import COLOURS, FIRST_COLOUR, NUM_COLOURS, VOCAB_SIZE, decode, encode
from .ids import IdTable, Tasks, make_ids
from .json_grids import ANY_SIDE, MAX_SIDE, as_grid
from .json_tasks import ArcTask, Pair, read_question
from .submission import write_submission
from .subsets import left_out, read_tasks, that_fit


@dataclasses.dataclass(frozen=True)
class Settings:
    """The section data.arc."""

    side: int = knob(30, "rows and columns of the canvas", low=1, high=62)
    train_subsets: tuple[str, ...] = knob(
        ("training", "evaluation", "concept"),
        "subsets used whole for training, except the test subset",
    )
    test_subset: str = knob(
        "evaluation", "only the demonstrations of its tasks are trained on"
    )
    max_grid: int = knob(
        0,
        "leave out tasks with a larger grid; 0: refuse those beyond side",
        low=0,
        high=ANY_SIDE,
    )
    allow_leaks: bool = knob(False, "train on tasks that hold answers to test inputs")


class Task(PuzzleTask):
    """ARC tasks as puzzles, each in several forms with their own ids."""

    SOURCES = ("json", "prepared", "arrays")
    MAX_AUGMENTATIONS = None

    def spec(self) -> PuzzleSpec:
        """The sizes. The files are read, because the ids must be counted."""
        if self.common.source == "arrays":
            require(self.common.train, "train", "arrays")
            return read_arrays(self.common.train, "train")[1]
        return self.load().spec

    def load(self) -> Data:
        """Read the subsets, choose tasks and assign the ids. Raises DataError."""
        if self.common.source == "arrays":  # each form there is a puzzle with an id
            if more := self.common.num_augmentations:
                text = "array folders hold their forms already, expected 0"
                raise DataError(f"data.num_augmentations = {more}; {text}")
            return super().load()
        return as_data(*self._numbered(), self.settings.side, self.common.seed)

    def _numbered(self) -> tuple[Tasks, IdTable]:
        """The chosen tasks and their ids."""
        common, side = self.common, self.settings.side
        tasks, ids = self._read()
        fitting = [
            that_fit(kind, side=side, max_grid=self.settings.max_grid)
            for kind in (tasks.train, tasks.test)
        ]
        counts = common.train_puzzles, common.test_puzzles
        of_train, of_test = (
            fit[chosen(len(fit), counts[draw], common.seed, draw)]
            for draw, fit in zip((TRAIN, TEST), fitting, strict=True)
        )
        kept = Tasks(
            [tasks.train[i] for i in of_train],
            [tasks.test[i] for i in of_test],
            [*tasks.warnings, *left_out(tasks, len(of_train), len(of_test))],
        )
        if ids is None:
            ids = make_ids(kept, common.num_augmentations, common.seed)
        else:
            ids = ids.subset(np.append(of_train, len(tasks.train) + of_test))
        return kept, ids

    def parse(self, question: Any) -> np.ndarray:
        """A question as rows of colours, 0 to 9."""
        value = question.tolist() if isinstance(question, np.ndarray) else question
        side = self.settings.side
        grid = as_grid(value, "the grid", max(side, MAX_SIDE))
        if max(grid.shape) > side:
            rows, columns = grid.shape
            raise DataError(f"the grid: {rows}x{columns}; data.arc.side = {side}")
        return encode(grid, side)

    def read(self, source: str, number: int = 1) -> tuple[Any, Any, str | None]:
        """Test input `number` of a task in a JSON file, or a grid as JSON."""
        return read_question(source, number)

    def name_of(self, example: int) -> str | None:
        """The name of the task of a test example; None for array folders."""
        if self.common.source == "arrays":
            return None
        tasks, _ = self._numbered()
        names = [task.name for task in tasks.test for _ in task.test]
        return names[example]

    def look(self) -> Look:
        """The digits of the colours; a blank is outside of the grid."""
        return Look((" ", " ", *map(str, range(NUM_COLOURS))), colours=COLOURS)

    def shown(self, answers: np.ndarray, question: np.ndarray) -> np.ndarray:
        """The colours of the decoded grids, with PAD around them."""
        del question
        side = self.settings.side
        return np.stack([_framed(decode(tokens, side), side) for tokens in answers])

    def grid(self, tokens: np.ndarray) -> np.ndarray:
        """The colours of the grid, `r c`."""
        return decode(tokens, self.settings.side)

    def pose(self, inputs: np.ndarray, name: str | None = None) -> EvalSet:
        """Questions with the puzzle id of the task `name`.

        Without a name, or if the task was not trained, they get the blank id, and a
        warning says so. Raises DataError if the files of the run, from which the ids
        are counted, cannot be read.
        """
        if name is None or self.common.source == "arrays":
            reason = "no task is named" if name is None else "array folders name none"
            warnings.warn(f"{reason}: the blank puzzle id is shown", stacklevel=4)
            return super().pose(inputs)
        _, ids = self._numbered()
        if name not in ids.names:
            text = f"task {name!r} was not trained: the blank puzzle id is shown"
            warnings.warn(text, stacklevel=4)
            return super().pose(inputs)
        i, count = ids.names.index(name), len(inputs)
        first = np.array([1 + ids.starts[i]], np.int32)
        one = np.array([0, 1])
        unknown = np.full_like(inputs, PAD_ID)
        return EvalSet(
            PuzzleSet(inputs, unknown, one * count, one, first, {}),
            ids.variants(slice(i, i + 1), self.settings.side, self.common.seed),
            id_map=ids.digest,
        )

    def load_test(self, path: str) -> EvalSet:
        """The test set, read from another folder.

        The training subsets, which are needed to count the ids, are also read from
        there if that folder holds all of them.
        """
        if self.common.source == "arrays":
            return super().load_test(path)
        common = dataclasses.replace(self.common, test=path)
        needed = {*self.settings.train_subsets}
        if common.source == "json" and needed <= {*find_subsets(path)}:
            common = dataclasses.replace(common, train=path)
        return Task(common, self.settings).load().test

    def _read(self) -> tuple[Tasks, IdTable | None]:
        """All tasks, and their ids if they were prepared."""
        common, train = self.common, self.common.train
        require(train, "train", common.source)
        asked: dict[str, Any] = {
            key: getattr(self.settings, key)
            for key in ("train_subsets", "test_subset", "allow_leaks")
        }
        if common.source == "json":
            leaves_out, side = self.settings.max_grid, self.settings.side
            asked["max_side"] = ANY_SIDE if leaves_out else max(side, MAX_SIDE)
            return read_tasks(train, common.test or train, **asked), None
        asked |= {"num_augmentations": common.num_augmentations, "seed": common.seed}
        return open_prepared(common.test or train, **asked)


def as_data(tasks: Tasks, ids: IdTable, side: int, seed: int) -> Data:
    """Tasks and ids as puzzles and forms."""
    if not tasks.test:
        raise DataError(
            "no test task is left; see data.arc.test_subset and data.arc.max_grid"
        )
    num_train, num_all = len(tasks.train), len(ids.names)
    shown = [(*task.train, *task.test) for task in tasks.train]
    shown += [task.train for task in tasks.test]
    first_ids = (1 + ids.starts[:-1]).astype(np.int32)
    train = _puzzle_set(shown, first_ids, side)
    asked = [task.test for task in tasks.test]
    test = _puzzle_set(asked, first_ids[num_train:], side)
    spec = PuzzleSpec(VOCAB_SIZE, (side, side), ids.num_ids)
    return Data(
        spec,
        train,
        ids.variants(slice(0, num_all), side, seed),
        EvalSet(
            test,
            ids.variants(slice(num_train, num_all), side, seed),
            id_map=ids.digest,
            write_submission=partial(_write, tasks=tasks.test, side=side),
        ),
        identity(spec, train, test) | {"id_map": ids.digest},
        tasks.warnings,
    )


def _write(path: Path, answers: np.ndarray, *, tasks: list[ArcTask], side: int) -> None:
    """Answers `n 2 m`, in the order of the test inputs, as a submission."""
    grids = [[decode(tokens, side) for tokens in pair] for pair in answers]
    counts = np.cumsum([0, *(len(task.test) for task in tasks)])
    attempts = {
        task.name: [(first, second) for first, second in grids[start:stop]]
        for task, start, stop in zip(tasks, counts[:-1], counts[1:], strict=True)
    }
    write_submission(path, attempts, tasks)


def _framed(grid: np.ndarray, side: int) -> np.ndarray:
    """Colours `r c` -> tokens `m`, without end markers."""
    canvas = np.full((side, side), PAD_ID)
    rows, columns = grid.shape
    canvas[:rows, :columns] = grid.astype(int) + FIRST_COLOUR
    return canvas.ravel()


def _puzzle_set(
    puzzles: list[tuple[Pair, ...]], first_ids: np.ndarray, side: int
) -> PuzzleSet:
    pairs = [pair for pairs in puzzles for pair in pairs]
    unknown = np.zeros(side**2, np.uint8)
    return PuzzleSet(
        np.stack([encode(pair.input, side) for pair in pairs]),
        np.stack(
            [
                unknown if pair.output is None else encode(pair.output, side)
                for pair in pairs
            ]
        ),
        np.cumsum([0, *map(len, puzzles)]),
        np.arange(len(puzzles) + 1),
        first_ids,
        {},
    )
