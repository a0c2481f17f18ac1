# SPDX-License-Identifier: Apache-2.0
import gzip
import json
import re

import numpy as np
import pytest

from data_pipeline.arc.bundles import find_subsets, read_subset
from data_pipeline.arc.json_tasks import digest
from tests.data_pipeline.arc.files import (
    BAD,
    SHARED,
    SUBSETS,
    cases,
    needs_shared,
    ok,
    plain,
    refusal,
    solved,
    write_bundle,
    write_folder,
    write_json,
)
from tests.helpers.timing import least_seconds

# Tasks, train pairs and test inputs, from the README beside the files.
COUNTS = {
    "training": (400, 1302, 416),
    "evaluation": (400, 1363, 419),
    "training2": (1000, 3232, 1076),
    "evaluation2": (120, 358, 172),
    "concept": (160, 427, 480),
}
# Patterns for the words that the manifest uses.
WORDS = {
    "file": "/arc-agi_training_challenges.json",
    "solutions file": "/arc-agi_training_solutions.json",
    "both files": "challenges.json and .*/arc-agi_training_solutions.json",
    "path of the missing solutions file": "/arc-agi_training_solutions.json",
    "line/column or offset": "line 1 column 1302:",
    "line/column": r"line 1 column 261[2-4]:",
    "2 test inputs, 1 solution": "2 test inputs, 1 solution$",
    "nested too deeply / not a task bundle": "nested too deeply",
}
# Cases that are accepted although the manifest leaves this open.
TAKEN = {"arc_no_solutions_file", "arc_bom"}


def test_bundle_is_read_as_written():
    tasks = read_subset(BAD / "arc_ok", "training", require_solutions=True)
    assert plain(tasks) == solved()
    assert [task.name for task in tasks] == list(ok("challenges"))
    assert {g.dtype for t in tasks for p in (*t.train, *t.test) for g in p} == {
        np.dtype(np.uint8)
    }


@pytest.mark.parametrize("case", cases(), ids=[case["file"] for case in cases()])
def test_bundles_are_taken_or_refused_as_the_manifest_says(case):
    folder = BAD / case["file"]
    if case["expect"] == "accept" or case["file"] in TAKEN:
        assert plain(read_subset(folder, "training")).keys() == ok("challenges").keys()
        return
    message = refusal(folder)
    assert str(folder) in message
    for name in case["error_should_name"]:
        assert re.search(WORDS.get(name, re.escape(name)), message), name


def test_every_folder_of_cases_is_in_the_manifest():
    names = {path.name for path in BAD.glob("arc_*")}
    assert names == {case["file"] for case in cases()} != set()


def test_byte_order_mark_loses_nothing():
    assert plain(read_subset(BAD / "arc_bom", "training")) == solved()


@pytest.mark.parametrize("ends", [("", ".gz"), (".gz", ""), (".gz", ".gz")])
def test_gzipped_bundle_loads_equally(tmp_path, ends):
    for part, end in zip(("challenges", "solutions"), ends, strict=True):
        write_json(tmp_path / f"arc-agi_training_{part}.json{end}", ok(part))
    assert plain(read_subset(tmp_path, "training")) == solved()


def test_missing_solutions_are_hidden_unless_required(tmp_path):
    for end in ("", ".gz"):
        folder = tmp_path / f"folder{end}"
        name = f"arc-agi_test_%s.json{end}"
        write_json(folder / (name % "challenges"), ok("challenges"))
        tasks = read_subset(folder, "test")
        assert plain(tasks) == ok("challenges")
        assert {pair.output for task in tasks for pair in task.test} == {None}
        message = refusal(folder, "test", require_solutions=True)
        assert message.startswith(f"{folder / (name % 'solutions')}: not found")


def test_outputs_given_twice_must_agree(tmp_path):
    assert plain(read_subset(write_bundle(tmp_path, solved()), "training")) == solved()
    other = solved()
    other["25ff71a9"]["test"][1]["output"][0][0] = 9
    message = refusal(write_bundle(tmp_path, other))
    assert message.count(str(tmp_path)) == 2
    assert message.endswith("task 25ff71a9: test 2: two different outputs")


@pytest.mark.parametrize("depth", ["", "Concept", "a/b"])
def test_folder_of_tasks_has_the_content_of_the_bundle(tmp_path, depth):
    tasks = solved()
    first = next(iter(tasks))
    write_folder(tmp_path / "training" / depth, {first: tasks.pop(first)})
    write_folder(tmp_path / "training", tasks)
    read = read_subset(tmp_path, "training", require_solutions=True)
    bundle = read_subset(BAD / "arc_ok", "training")
    assert plain(read) == solved()
    assert digest(read) == digest(sorted(bundle, key=lambda task: task.name))
    assert [task.name for task in read] == sorted(task.name for task in read)


def test_hidden_outputs_in_a_folder_are_none_unless_required(tmp_path):
    tasks = solved()
    del tasks["25ff71a9"]["test"][1]["output"]
    folder = write_folder(tmp_path / "training", tasks)
    assert plain(read_subset(tmp_path, "training")) == tasks
    message = refusal(tmp_path, require_solutions=True)
    place = f"{folder / '25ff71a9.json'}: task 25ff71a9: test 2"
    assert message == f'{place}: missing "output"'


def test_wrong_task_in_a_folder_is_named_with_its_file(tmp_path):
    tasks = solved()
    tasks["25ff71a9"]["test"][1]["output"][2][1] = 10
    folder = write_folder(tmp_path / "training", tasks)
    place = f"{folder / '25ff71a9.json'}: task 25ff71a9: test 2: output"
    assert refusal(tmp_path) == f"{place}: row 3 column 2: value 10, allowed 0-9"
    write_json(folder / "25ff71a9.json", [])
    assert "25ff71a9.json: task 25ff71a9: list found, object" in refusal(tmp_path)


def test_task_in_two_files_of_a_folder_is_refused(tmp_path):
    for part in ("a", "b"):
        write_folder(tmp_path / "training" / part, solved())
    message = refusal(tmp_path)
    for part in ("a", "b"):
        assert str(tmp_path / "training" / part / "007bbfb7.json") in message
    assert message.endswith("task 007bbfb7 occurs twice")


def test_folder_without_tasks_is_refused(tmp_path):
    (tmp_path / "training").mkdir()
    assert (
        refusal(tmp_path) == f"{tmp_path / 'training'}: 0 tasks: no file *.json in it"
    )


def test_subset_must_match_whole(tmp_path):
    write_bundle(tmp_path, subset="training2")
    write_bundle(tmp_path, subset="pretraining")
    write_folder(tmp_path / "training3", solved())
    write_json(tmp_path / "training", {})
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path}: subset 'training' not found")
    assert "*_training_challenges.json[.gz]" in message
    assert "subset 't.aining2' not found" in refusal(tmp_path, "t.aining2")
    write_bundle(tmp_path)
    assert plain(read_subset(tmp_path, "training")) == solved()


@pytest.mark.parametrize("prefix", ["", "other_", "arc_agi_2_"])
def test_any_prefix_will_do(tmp_path, prefix):
    for part in ("challenges", "solutions"):
        write_json(tmp_path / f"{prefix}training_{part}.json", ok(part))
    assert find_subsets(tmp_path) == ["training"]
    assert plain(read_subset(tmp_path, "training")) == solved()


@pytest.mark.parametrize(
    "rivals",
    [
        ("arc-agi_training_challenges.json", "arc-agi_training_challenges.json.gz"),
        ("arc-agi_training_challenges.json", "x_training_challenges.json"),
        ("arc-agi_training_challenges.json", "training/007bbfb7.json"),
        ("arc-agi_training_solutions.json", "arc-agi_training_solutions.json.gz"),
    ],
)
def test_two_sources_of_one_subset_are_refused(tmp_path, rivals):
    write_bundle(tmp_path)
    write_json(tmp_path / rivals[1], ok("solutions"))
    message = refusal(tmp_path)
    for rival in rivals:
        assert str(tmp_path / rival.split("/")[0]) in message.replace(" and ", " ")


def test_folders_that_are_none_are_refused(tmp_path):
    assert refusal(tmp_path / "absent") == f"{tmp_path / 'absent'}: not found"
    path = write_json(tmp_path / "x.json", {})
    assert refusal(path) == f"{path}: is a file, a folder is expected"


def test_subsets_of_both_layouts_are_found(tmp_path):
    assert find_subsets(tmp_path) == []
    write_bundle(tmp_path, subset="evaluation", end=".gz")
    write_folder(tmp_path / "training" / "Concept", solved())
    write_json(tmp_path / "arc-agi_hidden_solutions.json", ok("solutions"))
    write_json(tmp_path / "README.json", {})
    (tmp_path / "empty").mkdir()
    assert find_subsets(str(tmp_path)) == ["evaluation", "training"]


@needs_shared
@pytest.mark.slow
def test_published_files_hold_what_their_table_says():
    tasks = {}

    def read():
        for name in find_subsets(SHARED):
            tasks[name] = read_subset(SHARED, name)

    assert least_seconds(read) < 2
    assert list(tasks) == SUBSETS
    for name, subset in tasks.items():
        num_train = sum(len(task.train) for task in subset)
        num_test = sum(len(task.test) for task in subset)
        assert (len(subset), num_train, num_test) == COUNTS[name]


@needs_shared
@pytest.mark.parametrize("subset", SUBSETS)
def test_published_grids_are_read_as_written(subset):
    parts = []
    for part in ("challenges", "solutions"):
        with gzip.open(SHARED / f"arc-agi_{subset}_{part}.json.gz") as file:
            parts.append(json.load(file))
    expected, outputs = parts
    for name, task in expected.items():
        for pair, output in zip(task["test"], outputs[name], strict=True):
            pair["output"] = output
    assert plain(read_subset(SHARED, subset, require_solutions=True)) == expected
