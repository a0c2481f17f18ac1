# SPDX-License-Identifier: Apache-2.0
"""read_subset on damaged bundles and folders, and the check of grids on any value."""

import copy
import json
import shutil

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipeline.arc.bundles import read_subset
from data_pipeline.arc.json_grids import as_grid
from data_pipeline.errors import DataError
from tests.data_pipeline.arc.files import ok, plain, solved, write_bundle, write_folder

PARTS = ("challenges", "solutions")
CELLS = st.one_of(
    st.integers(0, 9),
    st.sampled_from([-1, 10, 256, 10**30, 2.0, True, False, None, "3", [], [1], {}]),
    st.floats(),
)
ROWS = st.one_of(
    CELLS, st.lists(st.integers(0, 9), min_size=2, max_size=2), st.lists(CELLS)
)
GRIDS = st.one_of(CELLS, st.lists(ROWS, max_size=4), st.just([[0] * 30] * 31))
VALUES = st.one_of(
    GRIDS,
    st.dictionaries(
        st.sampled_from(["input", "output", "train", "test", "a|b"]), GRIDS
    ),
    st.text(max_size=3),
)
EDITS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 20), min_size=1, max_size=7),
        st.sampled_from(["replace", "delete", "copy", "rename"]),
        VALUES,
    ),
    min_size=1,
    max_size=3,
)
BYTES = st.lists(
    st.tuples(
        st.integers(0, 3000),
        st.sampled_from(["replace", "insert", "delete", "cut", "repeat"]),
        st.sampled_from(list(b'[]{},:"0123456789.-eE \n\x00\xff\xeftnNI\\u')),
    ),
    min_size=1,
    max_size=4,
)


def edited(content, edits):
    """The content with JSON values inserted, removed, doubled or renamed at random."""
    content = copy.deepcopy(content)
    for place, edit, drawn in edits:
        value = json.loads(json.dumps(drawn))  # so that no list occurs twice
        parent, key = None, None
        node = content
        for step in place:
            if not isinstance(node, list | dict) or not node:
                break
            parent, key = node, list(node)[step % len(node)]
            if isinstance(node, list):
                key = step % len(node)
            node = node[key]
        match edit:
            case _ if parent is None:
                content = value
            case "replace":
                parent[key] = value
            case "delete":
                del parent[key]
            case "copy" if isinstance(parent, list):
                parent.append(copy.deepcopy(node))
            case "rename" | "copy" if isinstance(parent, dict):
                parent[str(value)[:5]] = parent.pop(key) if edit == "rename" else node
    return content


def damaged(content, edits):
    """The content with bytes changed at random places."""
    content = bytearray(content)
    for position, edit, byte in edits:
        position %= len(content) + 1
        match edit:
            case "replace":
                content[position : position + 1] = bytes([byte])
            case "insert":
                content[position:position] = bytes([byte])
            case "delete":
                del content[position : position + 1]
            case "cut":
                del content[position + 100 :]
            case "repeat":
                content[position:position] = content[position : position + 40]
    return bytes(content)


def is_grid(value):
    """Whether the value is a grid, checked cell by cell."""
    return (
        type(value) is list
        and 1 <= len(value) <= 30
        and all(type(row) is list and 1 <= len(row) <= 30 for row in value)
        and all(len(row) == len(value[0]) for row in value)
        and all(type(cell) is int and 0 <= cell <= 9 for row in value for cell in row)
    )


def expected_tasks(tasks, solutions=None):
    """The tasks that must be read from files that are accepted."""
    parts = ("input", "output")
    expected = {
        name: {
            part: [{p: pair[p] for p in parts if p in pair} for pair in task[part]]
            for part in ("train", "test")
        }
        for name, task in tasks.items()
    }
    for name, task in expected.items():
        if solutions is not None:
            for pair, output in zip(task["test"], solutions[name], strict=True):
                pair["output"] = output
    return expected


def check_folder(folder, read_expected):
    """Check that a folder is read as written, or an error names a file in one line."""
    try:
        tasks = plain(read_subset(folder, "training"))
    except DataError as error:
        message = str(error)
    else:
        assert json.dumps(tasks) == json.dumps(read_expected())
        pairs = [p for t in tasks.values() for p in (*t["train"], *t["test"])]
        assert all(is_grid(grid) for pair in pairs for grid in pair.values())
        assert all(task["train"] and task["test"] for task in tasks.values())
        return
    assert message.startswith(str(folder))
    assert ".json" in message
    assert "\n" not in message


def check_bundle(folder, part, content):
    """Check a bundle in which one file consists of these bytes."""
    write_bundle(folder)
    paths = {p: folder / f"arc-agi_training_{p}.json" for p in PARTS}
    paths[part].write_bytes(content)
    check_folder(
        folder,
        lambda: expected_tasks(
            *(json.loads(paths[p].read_text("utf-8-sig")) for p in PARTS)
        ),
    )


def check_task_files(folder, edits):
    tasks = edited(solved(), edits)
    tasks = tasks if isinstance(tasks, dict) else {}
    tasks = {name: tasks[name] for name in sorted(tasks) if name.isalnum()}
    (folder / "training").mkdir()
    write_folder(folder / "training", tasks)
    check_folder(folder, lambda: expected_tasks(tasks))
    shutil.rmtree(folder / "training")


QUICK = settings(max_examples=200, deadline=None, database=None)
LONG = settings(max_examples=5000, deadline=None, database=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("bundles")


@given(value=GRIDS)
@settings(max_examples=1000, deadline=None, database=None)
def test_values_are_grids_by_the_rule_alone(value):
    if is_grid(value):
        assert as_grid(value, "place").tolist() == value
        return
    with pytest.raises(DataError, match=r"^place: \S"):
        as_grid(value, "place")


@given(part=st.sampled_from(PARTS), edits=EDITS)
@QUICK
def test_edited_bundle_is_refused_or_read_right(folder, part, edits):
    check_bundle(folder, part, json.dumps(edited(ok(part), edits)).encode())


@given(part=st.sampled_from(PARTS), edits=BYTES)
@QUICK
def test_damaged_bundle_is_refused_or_read_right(folder, part, edits):
    check_bundle(folder, part, damaged(json.dumps(ok(part)).encode(), edits))


@given(edits=EDITS)
@QUICK
def test_edited_task_files_are_refused_or_read_right(tmp_path_factory, edits):
    check_task_files(tmp_path_factory.mktemp("tasks"), edits)


@pytest.mark.slow
@given(part=st.sampled_from(PARTS), edits=EDITS)
@LONG
def test_edited_bundle_is_refused_or_read_right_at_length(folder, part, edits):
    check_bundle(folder, part, json.dumps(edited(ok(part), edits)).encode())


@pytest.mark.slow
@given(part=st.sampled_from(PARTS), edits=BYTES)
@LONG
def test_damaged_bundle_is_refused_or_read_right_at_length(folder, part, edits):
    check_bundle(folder, part, damaged(json.dumps(ok(part)).encode(), edits))
