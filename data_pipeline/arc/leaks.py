# SPDX-License-Identifier: Apache-2.0
"""Test tasks whose answers would be trained on."""

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from .json_tasks import ArcTask, pair_key

SAME_NAME = "same name"
SAME_TRAIN = "same train pairs"  # in any order
# A test pair with its output is a train or test pair of the training task.
SAME_TEST = "same test pair"

_Clue = tuple[str, object]  # a kind of leak, and the content that two tasks share


class Leak(NamedTuple):
    """A test task, and a task of a training subset that gives its answer away."""

    test: str
    subset: str
    train: str
    kind: str  # the first of SAME_NAME, SAME_TRAIN, SAME_TEST that holds

    def __str__(self) -> str:
        return f"{self.test} is {self.train} of {self.subset} ({self.kind})"


def find_leaks(test: list[ArcTask], train: dict[str, list[ArcTask]]) -> list[Leak]:
    """All pairs of a test task and a task of the training subsets that leaks it.

    Every task also leaks itself. A caller that includes the subset of the test tasks
    must drop these pairs.
    """
    leaks = []
    for subset, tasks in train.items():
        owners = defaultdict(list)
        for task in tasks:
            for clue in _given(task):
                owners[clue].append(task.name)
        for task in test:
            kinds: dict[str, str] = {}
            for clue in _asked(task):
                for name in owners.get(clue, ()):
                    kinds.setdefault(name, clue[0])
            leaks += [Leak(task.name, subset, name, kinds[name]) for name in kinds]
    return leaks


def _asked(task: ArcTask) -> Iterator[_Clue]:
    """The clues that training data must not hold, the most telling one first."""
    yield SAME_NAME, task.name
    yield SAME_TRAIN, tuple(sorted(map(pair_key, task.train)))
    for pair in task.test:
        if pair.output is not None:
            yield SAME_TEST, pair_key(pair)


def _given(task: ArcTask) -> Iterator[_Clue]:
    """The clues that a training task gives away."""
    if any(pair.output is not None for pair in task.test):
        yield SAME_NAME, task.name
    yield SAME_TRAIN, tuple(sorted(map(pair_key, task.train)))
    for pair in (*task.train, *task.test):
        yield SAME_TEST, pair_key(pair)
