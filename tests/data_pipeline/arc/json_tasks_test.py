# SPDX-License-Identifier: Apache-2.0
import re

import pytest

from data_pipeline.arc.bundles import read_subset
from data_pipeline.arc.json_tasks import digest
from data_pipeline.json_files import named
from tests.data_pipeline.arc.files import BAD, changed, ok, refusal, write_bundle


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed("25ff71a9", value=None), "25ff71a9: null found, object with"),
        (
            changed("25ff71a9", "train", value={}),
            "train: object found, a list of pairs",
        ),
        (changed("25ff71a9", "test", value=[]), "task 25ff71a9: 0 test inputs"),
        (
            changed("25ff71a9", "train", 1, value=7),
            "train pair 2: number found, object",
        ),
        (changed("25ff71a9", "test", 1, value={}), 'test 2: missing "input"'),
        (changed("a|b", value={}), "task a|b: name of 1 to 100 .* without | expected"),
        (changed("", value={}), "task '': name of"),
        (changed("a\nb", value={}), r"task 'a\\nb': name of"),
        (changed("\ud800", value={}), r"task '\\ud800': name of"),
        (changed("x" * 101, value={}), r"task x+\.\.\.: name of"),
    ],
)
def test_wrong_structure_is_named(tmp_path, content, message):
    message = message.replace("|", r"\|")
    assert re.search(message, refusal(write_bundle(tmp_path, content)))


def test_digest_changes_with_everything_it_covers():
    tasks = read_subset(BAD / "arc_ok", "training")
    hidden = read_subset(BAD / "arc_no_solutions_file", "training")
    first, *others = tasks
    last = first.train[-1]
    variants = [
        tasks,
        hidden,
        [*others, first],
        [type(first)("other", first.train, first.test), *others],
        [type(first)(first.name, first.train[:-1], (last, *first.test)), *others],
        [type(first)(first.name, (*first.train[1:], first.train[0]), first.test)],
    ]
    assert len({digest(variant) for variant in variants}) == len(variants)


def test_many_missing_tasks_are_counted(tmp_path):
    task, outputs = ok("challenges")["3c9b0459"], ok("solutions")["3c9b0459"]
    tasks = {f"t{i}": task for i in range(9)}
    write_bundle(tmp_path, tasks, {"t0": outputs, "t9": outputs})
    expected = "tasks: missing t1, t2, t3, t4, t5 and 3 more; unknown t9"
    assert refusal(tmp_path).endswith(expected)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a b", "a b"),
        (" a", "' a'"),
        ("a ", "'a '"),
        ("a  b", "'a  b'"),
        ("", "''"),
        ("a\u200b", "'a\\u200b'"),
        ("a\u00a0b", "'a\\xa0b'"),
    ],
)
def test_names_with_spaces_that_are_easily_overlooked_are_quoted(name, shown):
    assert named(name) == shown
