# SPDX-License-Identifier: Apache-2.0
import collections
import functools

import numpy as np
import pytest

from data_pipeline.arc.bundles import Pair, read_subset
from data_pipeline.arc.json_tasks import ArcTask
from data_pipeline.arc.leaks import SAME_NAME, SAME_TEST, SAME_TRAIN, Leak, find_leaks
from tests.data_pipeline.arc.files import SHARED, needs_shared

read_shared = functools.cache(functools.partial(read_subset, SHARED))


def grid(*rows):
    return np.array(rows, np.uint8)


def pair(number, output=True):
    """A pair that differs from the pair of any other number."""
    shown = grid([number // 10, number % 10])
    return Pair(shown, grid([number // 10], [number % 10]) if output else None)


TEST = ArcTask("asked", (pair(1), pair(2)), (pair(3), pair(4)))


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        (ArcTask("asked", (pair(8),), (pair(9),)), SAME_NAME),
        (ArcTask("asked", (pair(8),), (pair(9, output=False),)), None),
        (ArcTask("asked", (pair(8),), (pair(9, output=False), pair(7))), SAME_NAME),
        (ArcTask("other", (pair(1), pair(2)), (pair(9),)), SAME_TRAIN),
        (ArcTask("other", (pair(2), pair(1)), (pair(9),)), SAME_TRAIN),
        (ArcTask("other", (pair(1), pair(2), pair(2)), (pair(9),)), None),
        (ArcTask("other", (pair(1),), (pair(2),)), None),
        (ArcTask("other", (pair(8),), (pair(4),)), SAME_TEST),
        (ArcTask("other", (pair(3),), (pair(9),)), SAME_TEST),
        (ArcTask("other", (pair(8),), (pair(3, output=False),)), None),
        (ArcTask("other", (Pair(pair(3).input, pair(4).output),), (pair(9),)), None),
        (ArcTask("other", (Pair(pair(3).input, pair(3).output.T),), (pair(9),)), None),
    ],
)
def test_leaks_are_found_by_name_and_by_content(task, kind):
    leaks = find_leaks([TEST], {"sub": [task]})
    assert leaks == ([Leak("asked", "sub", task.name, kind)] if kind else [])


def test_unknown_answers_leak_by_name_and_by_demonstrations_alone():
    unknown = tuple(p._replace(output=None) for p in TEST.test)
    hidden = ArcTask("asked", TEST.train, unknown)
    for other, kinds in (
        (ArcTask("other", (pair(3),), (pair(9),)), []),
        (ArcTask("other", (pair(8),), unknown), []),
        (ArcTask("other", TEST.train, (pair(9),)), [SAME_TRAIN]),
        (ArcTask("asked", (pair(8),), (pair(9),)), [SAME_NAME]),
    ):
        leaks = find_leaks([hidden], {"sub": [other]})
        assert [leak.kind for leak in leaks] == kinds


def test_every_task_that_leaks_is_named_once_in_order():
    first, second = (
        ArcTask("z", (pair(3), pair(4)), (pair(3),)),
        ArcTask("asked", TEST.train, TEST.test),
    )
    leaks = find_leaks([TEST], {"b": [first, second], "a": [first]})
    assert [(leak.subset, leak.train, leak.kind) for leak in leaks] == [
        ("b", "asked", SAME_NAME),
        ("b", "z", SAME_TEST),
        ("a", "z", SAME_TEST),
    ]
    assert str(leaks[0]) == "asked is asked of b (same name)"


def counted(test, *train):
    return collections.Counter(
        (leak.subset, leak.kind)
        for leak in find_leaks(read_shared(test), {s: read_shared(s) for s in train})
    )


@needs_shared
def test_published_overlaps_are_found():
    assert counted("evaluation", "training2") == {("training2", SAME_NAME): 376}
    assert counted("training", "training2")["training2", SAME_NAME] == 391
    assert counted("evaluation2", "evaluation")["evaluation", SAME_NAME] == 6
    assert counted("evaluation2", "training2", "concept") == {}
    leaks = find_leaks(
        read_shared("evaluation"), {s: read_shared(s) for s in ("training", "concept")}
    )
    assert leaks == [Leak("070dd51e", "training", "40853293", SAME_TRAIN)]


@needs_shared
def test_375_tasks_have_the_same_pairs_under_the_same_name():
    evaluation = {task.name: task for task in read_shared("evaluation")}
    renamed = [
        ArcTask(f"x{task.name}", task.train, task.test)
        for task in read_shared("training2")
        if task.name in evaluation
    ]
    leaks = find_leaks(list(evaluation.values()), {"renamed": renamed})
    same = [leak for leak in leaks if leak.train == f"x{leak.test}"]
    assert len(renamed) == 376
    assert collections.Counter(leak.kind for leak in same) == {
        SAME_TRAIN: 375,
        SAME_TEST: 1,
    }
