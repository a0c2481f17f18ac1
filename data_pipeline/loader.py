# SPDX-License-Identifier: Apache-2.0
"""Batch k as a pure function of (seed, k), and evaluation batches in file order."""

import collections
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from .errors import DataError
from .hashing import random_below, random_bits
from .spec import BLANK_PUZZLE_ID, PAD_ID, PuzzleSet
from .variants import Variants, Visit

Batch = dict[str, np.ndarray]  # the fields of trm_jax.types.Batch
PUZZLE_IDS = ("own", "blank", "random")  # what an evaluation shows as puzzle id

_GROUP_ORDER, _VARIANT, _EXAMPLE_ORDER, _RANDOM_ID = range(4)


class TrainLoader:
    """`loader(k)`: batch k of the endless stream of epochs.

    An epoch visits every group once in random order, draws one of the forms of its
    stored puzzles and takes that puzzle's examples in random order. Epochs are laid end
    to end and cut into batches of `batch_size` rows; `rows`, ascending numbers of some,
    is this process's part.
    """

    def __init__(
        self,
        puzzles: PuzzleSet,
        *,
        batch_size: int,
        seed: int,
        variants: Variants | None = None,
        rows: np.ndarray | None = None,
    ) -> None:
        if batch_size < 1:
            raise DataError(f"train.batch_size = {batch_size}; expected >= 1")
        if not 0 <= seed < 2**63:
            raise DataError(f"seed = {seed}; expected 0 to 2**63 - 1")
        self._puzzles = puzzles
        self._batch_size = batch_size
        self._seed = seed
        self._variants = variants
        self._rows = np.arange(batch_size) if rows is None else rows
        self._group_sizes = _examples_per_group(puzzles)
        one_each = np.ones(len(puzzles.puzzle_ids), int)
        num_forms = one_each if variants is None else variants.num_forms
        self._form_starts = np.concatenate([[0], np.cumsum(num_forms)])
        self.epoch_size = int(self._group_sizes.sum())
        if not self.epoch_size:
            raise DataError("the training set is empty; expected at least one puzzle")
        self._epoch = functools.lru_cache(maxsize=4)(self._draw_epoch)

    def __call__(self, k: int) -> Batch:
        """Rows of batch k as the fields of a Batch."""
        position = k * self._batch_size + self._rows
        first, last = position[[0, -1]] // self.epoch_size
        epochs = [self._epoch(e) for e in range(first, last + 1)]
        base = first * self.epoch_size
        example, puzzle, form, slot = (
            np.concatenate(parts)[position - base]
            for parts in zip(*epochs, strict=True)
        )
        rows = Visit(example, puzzle, form, slot, position)
        inputs = self._puzzles.inputs[rows.example]
        labels = self._puzzles.labels[rows.example]
        ids = self._puzzles.puzzle_ids[rows.puzzle]
        if self._variants is not None:
            inputs, labels = self._variants.visit(rows, inputs, labels)
            ids = ids + rows.form * self._variants.has_ids
        return as_batch(inputs, labels, ids)

    def _draw_epoch(self, epoch: int) -> tuple[np.ndarray, ...]:
        """The first four fields of Visit at every position of one epoch."""
        p, seed = self._puzzles, self._seed
        num_groups = len(p.group_starts) - 1
        groups = np.arange(num_groups)
        order = np.argsort(random_bits(seed, _GROUP_ORDER, epoch, groups))
        first = self._form_starts[p.group_starts]
        drawn = random_below(np.diff(first)[order], seed, _VARIANT, epoch, order)
        place = first[order] + drawn
        puzzle = np.searchsorted(self._form_starts, place, side="right") - 1
        form = place - self._form_starts[puzzle]
        sizes = self._group_sizes[order]
        visit = np.repeat(np.arange(num_groups), sizes)
        slot = np.arange(self.epoch_size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        example = p.puzzle_starts[puzzle][visit] + slot
        if sizes.max() > 1:
            shuffle = random_bits(seed, _EXAMPLE_ORDER, epoch, example)
            example = example[np.lexsort((shuffle, visit))]
        return example, puzzle[visit], form[visit], slot


class EvalRows(NamedTuple):
    """What an evaluation shows, `r` each: an example, its puzzle, the form of it."""

    example: np.ndarray
    puzzle: np.ndarray
    form: np.ndarray

    @classmethod
    def of(
        cls, puzzles: PuzzleSet, variants: Variants | None = None, votes: int = 1
    ) -> "EvalRows":
        """Every example in the first `votes` forms that it has (0: all), in order."""
        sizes = np.diff(puzzles.puzzle_starts)
        puzzle = np.repeat(np.arange(len(sizes)), sizes)
        forms = np.ones(len(puzzle), int)
        if variants is not None and votes != 1:
            forms = variants.num_forms[puzzle]
            forms = np.minimum(forms, votes) if votes else forms
        example = np.repeat(np.arange(len(puzzle)), forms)
        form = np.arange(len(example)) - np.repeat(np.cumsum(forms) - forms, forms)
        return cls(example, puzzle[example], form)

    def part(self, rows: slice) -> "EvalRows":
        """Some of the rows."""
        return EvalRows(*(field[rows] for field in self))


def eval_batches(
    puzzles: PuzzleSet,
    batch_size: int,
    rows: EvalRows | None = None,
    variants: Variants | None = None,
    *,
    puzzle_ids: str = "own",
    num_puzzles: int = 1,
) -> Iterator[Batch]:
    """The rows (None: every example, as it is) in order, padded with weight-0 rows.

    `puzzle_ids` = "blank" or "random" hides which puzzle it is: id 0, or any of the
    `num_puzzles` - 1 ids above, which follows from the row alone.
    """
    rows = EvalRows.of(puzzles) if rows is None else rows
    for first in range(0, len(rows.example), batch_size):
        example, puzzle, form = rows.part(slice(first, first + batch_size))
        inputs, labels = puzzles.inputs[example], puzzles.labels[example]
        ids = puzzles.puzzle_ids[puzzle]
        if variants is not None and form.any():
            inputs, labels = variants.apply(puzzle, form, inputs, labels)
            ids = ids + form * variants.has_ids
        if puzzle_ids == "blank":
            ids = np.full_like(ids, BLANK_PUZZLE_ID)
        elif puzzle_ids == "random" and num_puzzles > 1:
            ids = 1 + random_below(num_puzzles - 1, _RANDOM_ID, example, form)
        batch = as_batch(inputs, labels, ids)
        missing = batch_size - len(ids)
        yield {
            name: np.pad(a, [(0, missing)] + [(0, 0)] * (a.ndim - 1))
            for name, a in batch.items()
        }


def prefetched(
    loader: Callable[[int], Batch], start: int, stop: int
) -> Iterator[Batch]:
    """Batches start..stop-1, each made on a thread while the ones before are used."""
    with ThreadPoolExecutor(1, thread_name_prefix="loader") as pool:
        waiting: collections.deque[Future[Batch]] = collections.deque()
        for k in range(start, stop):
            waiting.append(pool.submit(loader, k))
            if len(waiting) > 2:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def as_batch(inputs: np.ndarray, labels: np.ndarray, puzzle_id: np.ndarray) -> Batch:
    """Tokens `b m` and ids `b` as the fields of a Batch, all of weight 1."""
    return {
        "inputs": inputs.astype(np.int32),
        "labels": labels.astype(np.int32),
        "label_mask": labels != PAD_ID,
        "puzzle_id": puzzle_id.astype(np.int32),
        "weight": np.ones(len(inputs), np.float32),
    }


def _examples_per_group(puzzles: PuzzleSet) -> np.ndarray:
    """Examples that one visit of each group takes: the same for all its puzzles."""
    per_puzzle = np.diff(puzzles.puzzle_starts)
    first = per_puzzle[puzzles.group_starts[:-1]]
    uneven = per_puzzle != np.repeat(first, np.diff(puzzles.group_starts))
    if uneven.any():
        raise DataError(
            f"puzzle {int(np.argmax(uneven)) + 1} has another number of examples than "
            "the first puzzle of its group; expected equal numbers"
        )
    return first
