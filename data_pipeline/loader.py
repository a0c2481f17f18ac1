# SPDX-License-Identifier: Apache-2.0
"""Training batch k as a pure function of (seed, k)."""

import collections
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from .errors import DataError
from .hashing import random_below, random_bits
from .spec import PAD_ID, PuzzleSet
from .variants import SingleForm, Variants, Visit

Batch = dict[str, np.ndarray]  # the fields of trm_jax.types.Batch

_GROUP_ORDER, _VARIANT, _EXAMPLE_ORDER = range(3)


class TrainLoader:
    """`loader(k)` is batch k of the endless stream of epochs.

    An epoch visits every group once, in random order. A visit draws one form of one of
    the group's puzzles and takes the examples of that puzzle in random order. The
    epochs are joined and cut into batches of `batch_size` rows. `rows` holds the
    numbers of the rows that this process makes of each batch, in ascending order.
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
        self._variants = variants or SingleForm(len(puzzles.puzzle_ids))
        self._rows = np.arange(batch_size) if rows is None else rows
        self._group_sizes = _examples_per_group(puzzles)
        num_forms = self._variants.num_forms
        self._form_starts = np.concatenate([[0], np.cumsum(num_forms)])
        self.epoch_size = int(self._group_sizes.sum())
        if not self.epoch_size:
            raise DataError("the training set is empty; expected at least one puzzle")
        self._epoch = functools.lru_cache(maxsize=4)(self._draw_epoch)

    def __call__(self, k: int) -> Batch:
        """The rows of batch k as the fields of a Batch."""
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


def prefetched(
    loader: Callable[[int], Batch], start: int, stop: int
) -> Iterator[Batch]:
    """Batches start..stop-1, made on a thread while earlier ones are in use."""
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
    """How many examples a visit of each group takes: equal for all its puzzles."""
    per_puzzle = np.diff(puzzles.puzzle_starts)
    first = per_puzzle[puzzles.group_starts[:-1]]
    uneven = per_puzzle != np.repeat(first, np.diff(puzzles.group_starts))
    if uneven.any():
        raise DataError(
            f"puzzle {int(np.argmax(uneven)) + 1} has a different number of examples "
            "than the first puzzle of its group; expected equal numbers"
        )
    return first
