# SPDX-License-Identifier: Apache-2.0
"""Batch k as a pure function of (seed, k), and evaluation batches in file order."""

import collections
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from data_pipeline.errors import DataError
from data_pipeline.hashing import random_below, random_bits
from data_pipeline.spec import PAD_ID, PuzzleSet

Batch = dict[str, np.ndarray]  # the fields of trm_jax.types.Batch
# (puzzle, augmentation index, inputs, labels) -> inputs, labels
Augment = Callable[
    [np.ndarray, np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]
]

_GROUP_ORDER, _VARIANT, _EXAMPLE_ORDER = range(3)


class TrainLoader:
    """`loader(k)`: batch k of the endless stream of epochs.

    An epoch visits every group once in random order, draws one of its variants (a
    stored puzzle, then one of its `num_augmentations` + 1 symmetries) and takes that
    puzzle's examples in random order. Epochs are laid end to end and cut into batches
    of `batch_size` rows; `rows`, a slice without a step, is this process's part.
    """

    def __init__(
        self,
        puzzles: PuzzleSet,
        *,
        batch_size: int,
        seed: int,
        num_augmentations: int = 0,
        augment: Augment | None = None,
        rows: slice = slice(None),
    ) -> None:
        if num_augmentations < 0 or (num_augmentations and augment is None):
            expected = "0: this source has none" if augment is None else "0 or more"
            raise DataError(
                f"data.num_augmentations = {num_augmentations}; expected {expected}"
            )
        if batch_size < 1 or not range(batch_size)[rows]:
            raise DataError(
                f"train.batch_size = {batch_size} leaves no row for this process"
            )
        if rows.step not in (None, 1):
            raise ValueError(f"{rows = }; expected neighbouring rows")
        if not 0 <= seed < 2**63:
            raise DataError(f"seed = {seed}; expected 0 to 2**63 - 1")
        self._puzzles = puzzles
        self._batch_size = batch_size
        self._seed = seed
        self._variants = num_augmentations + 1
        self._augment = augment
        self._rows = rows
        self._group_sizes = _examples_per_group(puzzles)
        self.epoch_size = int(self._group_sizes.sum())
        if not self.epoch_size:
            raise DataError("the training set is empty; expected at least one puzzle")
        self._epoch = functools.lru_cache(maxsize=4)(self._draw_epoch)

    def __call__(self, k: int) -> Batch:
        """Rows of batch k as the fields of a Batch."""
        first = k * self._batch_size
        position = np.arange(first, first + self._batch_size)[self._rows]
        epochs = [self._epoch(e) for e in np.unique(position // self.epoch_size)]
        base = position[0] // self.epoch_size * self.epoch_size
        pick = [
            np.concatenate(parts)[position - base]
            for parts in zip(*epochs, strict=True)
        ]
        example, puzzle, index = pick
        inputs = self._puzzles.inputs[example]
        labels = self._puzzles.labels[example]
        if self._augment is not None:
            inputs, labels = self._augment(puzzle, index, inputs, labels)
        return _batch(inputs, labels, self._puzzles.puzzle_ids[puzzle])

    def _draw_epoch(self, epoch: int) -> tuple[np.ndarray, ...]:
        """(example, puzzle, augmentation index) at every position of one epoch."""
        p, seed = self._puzzles, self._seed
        num_groups = len(p.group_starts) - 1
        groups = np.arange(num_groups)
        order = np.argsort(random_bits(seed, _GROUP_ORDER, epoch, groups))
        stored = np.diff(p.group_starts)[order]
        variant = random_below(stored * self._variants, seed, _VARIANT, epoch, order)
        puzzle = p.group_starts[order] + variant // self._variants
        sizes = self._group_sizes[order]
        visit = np.repeat(np.arange(num_groups), sizes)
        offset = np.arange(self.epoch_size) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        example = p.puzzle_starts[puzzle][visit] + offset
        if sizes.max() > 1:
            shuffle = random_bits(seed, _EXAMPLE_ORDER, epoch, example)
            example = example[np.lexsort((shuffle, visit))]
        return example, puzzle[visit], (variant % self._variants)[visit]


def eval_batches(puzzles: PuzzleSet, batch_size: int) -> Iterator[Batch]:
    """Every example once, in order; the last batch is padded with weight-0 rows."""
    puzzle = np.repeat(
        np.arange(len(puzzles.puzzle_ids)), np.diff(puzzles.puzzle_starts)
    )
    for first in range(0, len(puzzles), batch_size):
        rows = slice(first, first + batch_size)
        ids = puzzles.puzzle_ids[puzzle[rows]]
        batch = _batch(puzzles.inputs[rows], puzzles.labels[rows], ids)
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


def _batch(inputs: np.ndarray, labels: np.ndarray, puzzle_id: np.ndarray) -> Batch:
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
