# SPDX-License-Identifier: Apache-2.0
import re

import pytest

from data_pipeline.arc.bundles import read_subset
from data_pipeline.arc.check import check
from data_pipeline.arc.json_tasks import digest
from data_pipeline.errors import DataError
from tests.data_pipeline.arc.files import (
    BAD,
    SHARED,
    cases,
    needs_shared,
    ok,
    solved,
    write_bundle,
    write_folder,
    write_json,
)

CHALLENGES = "arc-agi_training_challenges.json"
SOLUTIONS = "arc-agi_training_solutions.json"
FACTS = "3 tasks, 13 train pairs, 4 test inputs, grid sides 3 to 9"


def test_facts_are_counted():
    facts, warnings = check(BAD / "arc_ok")
    tasks = read_subset(BAD / "arc_ok", "training")
    path = BAD / "arc_ok" / CHALLENGES
    assert facts == [f"{path}: {FACTS}", f"SHA-256: {digest(tasks)}"]
    assert warnings == []


@pytest.mark.parametrize("case", cases(), ids=[case["file"] for case in cases()])
def test_refused_bundles_are_refused_here_too(case):
    path = BAD / case["file"]
    try:
        read_subset(path, "training")
    except DataError as error:
        for checked in (path, path / CHALLENGES, path / SOLUTIONS):
            with pytest.raises(DataError, match=re.escape(str(error))):
                check(checked)
    else:
        assert FACTS in check(path)[0][0]


def test_missing_solutions_are_warned_of_by_path():
    path = BAD / "arc_no_solutions_file"
    for checked in (path, path / CHALLENGES):
        _, warnings = check(checked)
        assert warnings == [f"{path / SOLUTIONS}: not found: test outputs unknown"]


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("part", ["challenges", "solutions"])
def test_one_file_stands_for_its_bundle(tmp_path, part, end):
    write_bundle(tmp_path, end=end)
    write_bundle(tmp_path, subset="training2")
    facts, warnings = check(tmp_path / f"arc-agi_training_{part}.json{end}")
    assert facts[0] == f"{tmp_path / CHALLENGES}{end}: {FACTS}"
    assert len(facts) == 2
    assert warnings == []


def test_solutions_without_challenges_are_refused(tmp_path):
    path = write_json(tmp_path / SOLUTIONS, ok("solutions"))
    with pytest.raises(DataError, match=f"{tmp_path / CHALLENGES}: not found"):
        check(path)


@pytest.mark.parametrize("name", ["absent", "task.json"])
def test_other_files_are_refused(tmp_path, name):
    write_json(tmp_path / "task.json", {})
    with pytest.raises(DataError, match=rf"{name}: not found, or not named \[<prefix>"):
        check(tmp_path / name)


def test_folder_without_a_subset_is_refused(tmp_path):
    with pytest.raises(DataError, match=f"{tmp_path}: no file .*no folder of"):
        check(tmp_path)


def test_tasks_of_a_folder_without_outputs_are_named(tmp_path):
    tasks = solved()
    del tasks["25ff71a9"]["test"][1]["output"]
    folder = write_folder(tmp_path / "evaluation", tasks)
    facts, warnings = check(tmp_path)
    assert facts[0] == f"{folder}: {FACTS}"
    assert warnings == [f"{folder}: 1 tasks lack test outputs: 25ff71a9"]


def test_shared_tasks_are_counted_in_one_warning(tmp_path):
    write_bundle(tmp_path)
    tasks = solved()
    tasks["renamed"] = tasks.pop("3c9b0459")
    write_folder(tmp_path / "zebra", tasks)
    _, warnings = check(tmp_path)
    assert warnings == [
        "overlap: training and zebra: 2 tasks of the same name: 007bbfb7, 25ff71a9",
        "overlap: training and zebra: 1 tasks of the same train pairs: "
        "3c9b0459 = renamed",
    ]


@needs_shared
def test_published_overlaps_are_warned_of():
    facts, warnings = check(SHARED)
    assert len(facts) == 10
    assert (
        "400 tasks, 1,302 train pairs, 416 test inputs, grid sides 1 to 30" in facts[6]
    )
    for expected in (
        "concept: MoveToBoundary10 and MoveToBoundary9 have the same train pairs",
        "overlap: evaluation and training: 1 tasks of the same train pairs: "
        "070dd51e = 40853293",
        "overlap: evaluation and training2: 376 tasks of the same name: 00576224, "
        "009d5c81, 00dbd492, 03560426, 05a7bcf2 and 371 more",
        "overlap: evaluation and evaluation2: 6 tasks of the same name: ",
        "overlap: training and training2: 391 tasks of the same name: ",
    ):
        assert any(warning.startswith(expected) for warning in warnings)
    assert len(warnings) == 7
