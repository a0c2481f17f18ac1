# SPDX-License-Identifier: Apache-2.0
import json
import pathlib
import shutil

import numpy as np
import pytest

from data_pipeline.arc.augmentations import sample_codes
from data_pipeline.errors import DataError
from data_pipeline.prepared.arc_agi.names import open_prepared, prepared_set
from data_pipeline.prepared.arc_agi.prepare import main
from tests.data_pipeline.arc_agi_oracle import (
    assert_equal,
    command,
    from_json,
    from_prepared,
    prepare,
    random_task,
    write_bundle,
)

ROOT = pathlib.Path(__file__).parents[2]
SMALL = {
    "train_subsets": ("first", "asked"),
    "test_subset": "asked",
    "num_augmentations": 20,
    "seed": 5,
    "allow_leaks": False,
}
SIDE = 12


@pytest.fixture
def files():
    """The tasks of the bundles in `source`; one name has a letter of two bytes."""
    rng = np.random.default_rng(0)
    names = {"first": ["a1", "β2", "c3"], "asked": ["d4", "e5"]}
    return {
        subset: {name: random_task(rng) for name in tasks}
        for subset, tasks in names.items()
    }


@pytest.fixture
def source(tmp_path, files):
    """A folder with bundles of the subsets `first` and `asked`."""
    folder = tmp_path / "source"
    folder.mkdir()
    for subset, tasks in files.items():
        write_bundle(folder, subset, tasks)
    return folder


@pytest.fixture
def data_dir(tfds, source, tmp_path):
    """A folder with the tasks of SMALL prepared in it."""
    prepare(tmp_path / "data", source=str(source), **SMALL)
    return tmp_path / "data"


def folder_of(data_dir, config="custom"):
    return data_dir / "arc_agi" / config / "1.0.0"


def test_tasks_come_back_as_they_stand_in_the_files(data_dir, files):
    tasks, ids = open_prepared(data_dir, **SMALL)
    assert ids.names == ["a1", "β2", "c3", "d4", "e5"]
    found = {
        task.name: {
            part: [
                {"input": pair.input.tolist(), "output": pair.output.tolist()}
                for pair in getattr(task, part)
            ]
            for part in ("train", "test")
        }
        for task in tasks.train + tasks.test
    }
    assert found == files["first"] | files["asked"]
    assert [task.name for task in tasks.test] == ["d4", "e5"]
    for task, start, stop in zip(
        tasks.train + tasks.test, ids.starts[:-1], ids.starts[1:], strict=True
    ):
        pairs = (*task.train, *task.test)
        expected = sample_codes(pairs, 20, 5, task.name)
        np.testing.assert_array_equal(ids.codes[start:stop], expected, strict=True)


def test_the_data_is_that_of_the_json_files(data_dir, source):
    found = from_prepared(data_dir, SMALL, SIDE)
    assert found.spec.num_puzzles > 5 * 20
    assert_equal(found, from_json(source, SMALL, SIDE))


def test_records_give_the_same_without_the_cache(data_dir, source):
    shutil.rmtree(folder_of(data_dir) / "cache")
    assert_equal(from_prepared(data_dir, SMALL, SIDE), from_json(source, SMALL, SIDE))


def test_unknown_outputs_stay_unknown(tfds, tmp_path, source, files):
    (source / "arc-agi_asked_solutions.json").unlink()
    prepare(tmp_path, source=str(source), **SMALL)
    tasks, _ = open_prepared(tmp_path, **SMALL)
    assert [pair.output for task in tasks.test for pair in task.test] == [None] * sum(
        len(task["test"]) for task in files["asked"].values()
    )
    assert_equal(from_prepared(tmp_path, SMALL, SIDE), from_json(source, SMALL, SIDE))


def test_the_good_bundle_is_a_source(tfds, tmp_path):
    good = ROOT / "tests" / "data_pipeline" / "bad" / "arc_ok"
    asked = SMALL | {"train_subsets": (), "test_subset": "training"}
    prepare(tmp_path, source=str(good), **asked)
    tasks, _ = open_prepared(tmp_path, **asked)
    assert [task.name for task in tasks.test] == ["007bbfb7", "25ff71a9", "3c9b0459"]
    assert tasks.test[0].train[0].input.tolist() == [[0, 7, 7], [7, 7, 7], [0, 7, 7]]
    assert_equal(from_prepared(tmp_path, asked, 30), from_json(good, asked, 30))


def test_folders_with_a_file_for_each_task_are_a_source(tfds, tmp_path, files):
    for subset, tasks in files.items():
        folder = tmp_path / "source" / subset
        folder.mkdir(parents=True)
        for name, task in tasks.items():
            (folder / f"{name}.json").write_text(json.dumps(task))
    prepare(tmp_path, source=str(tmp_path / "source"), **SMALL)
    expected = from_json(tmp_path / "source", SMALL, SIDE)
    assert_equal(from_prepared(tmp_path, SMALL, SIDE), expected)


def test_the_subsets_name_the_config():
    one, two = ("training", "evaluation", "concept"), ("training2", "evaluation2")
    assert prepared_set(one, "evaluation").config == "arc_agi_1"
    assert prepared_set([*two, "concept"], "evaluation2").config == "arc_agi_2"
    assert prepared_set(two, "evaluation2").config == "custom"
    assert prepared_set(one, "evaluation2").config == "custom"


CUSTOM_FLAGS = ["--train_subsets", "first", "--test_subset=asked"]


def test_the_command_reports_tasks_and_ids(tfds, tmp_path, source, capsys):
    more = [*CUSTOM_FLAGS, "--num_augmentations=20", "--seed=5"]
    assert main(command("custom", tmp_path, source, *more)) == 0
    asked = SMALL | {"train_subsets": ("first",)}
    num_ids = from_json(source, asked, SIDE).spec.num_puzzles
    expected = f"3 tasks to train on, 2 to test on, {num_ids:,} puzzle ids\n"
    assert f"{folder_of(tmp_path)}: {expected}" in capsys.readouterr().out
    assert_equal(from_prepared(tmp_path, asked, SIDE), from_json(source, asked, SIDE))


def test_a_json_error_names_the_file_and_leaves_nothing(tfds, tmp_path, source, capsys):
    bad = source / "arc-agi_first_solutions.json"
    bad.write_text("{")
    assert main(command("custom", tmp_path, source, *CUSTOM_FLAGS)) == 2
    assert f"error: {bad}" in capsys.readouterr().err
    assert not list(folder_of(tmp_path).parent.glob("*"))
    with pytest.raises(DataError, match="run python -m .*prepared.arc_agi.prepare"):
        open_prepared(tmp_path, **SMALL)


def test_a_missing_subset_is_named(tfds, tmp_path, source, capsys):
    assert main(command("arc_agi_1", tmp_path, source)) == 2
    assert "subset 'training' not found" in capsys.readouterr().err


@pytest.mark.parametrize("key", ["num_augmentations", "seed"])
def test_numbers_below_zero_are_refused(tfds, tmp_path, source, key):
    with pytest.raises(DataError, match=rf"{key} = -1"):
        prepare(tmp_path, source=str(source), **SMALL | {key: -1})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_augmentations", 10),
        ("seed", 0),
        ("train_subsets", ("first",)),
        ("test_subset", "first"),
    ],
)
def test_another_request_than_the_prepared_one_is_refused(data_dir, key, value):
    expected = rf"prepared with {key} = .*, but data\.{key} = "
    with pytest.raises(DataError, match=expected):
        open_prepared(data_dir, **SMALL | {key: value})


@pytest.mark.parametrize("text", ["[]", '{"request": 3}', "{"])
def test_metadata_of_others_is_refused(data_dir, text):
    (folder_of(data_dir) / "metadata.json").write_text(text)
    with pytest.raises(DataError, match=r"metadata.json|prepared with .* = None"):
        open_prepared(data_dir, **SMALL)


@pytest.mark.parametrize("name", ["cells", "codes", "name"])
def test_a_damaged_cache_is_built_anew_from_intact_records_alone(data_dir, name):
    path = folder_of(data_dir) / "cache" / f"tasks_{name}.npy"
    intact = path.read_bytes()
    path.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
    open_prepared(data_dir, **SMALL)
    assert path.read_bytes() == intact
    path.unlink()
    next(folder_of(data_dir).glob("*.array_record*")).write_bytes(b"")
    with pytest.raises(DataError, match="records of split tasks"):
        open_prepared(data_dir, **SMALL)


def leaking(source, files):
    """The folder `source`, with a task of `asked` also in the subset `first`."""
    write_bundle(source, "first", files["first"] | {"d4": files["asked"]["d4"]})
    return source


def test_training_on_answers_is_refused_unless_forced(tfds, tmp_path, source, files):
    leaking(source, files)
    with pytest.raises(DataError, match="d4"):
        prepare(tmp_path, source=str(source), **SMALL)
    asked = SMALL | {"allow_leaks": True}
    warnings = prepare(tmp_path, source=str(source), **asked)
    assert any("d4" in warning for warning in warnings)
    assert_equal(from_prepared(tmp_path, asked, SIDE), from_json(source, asked, SIDE))
    with pytest.raises(DataError, match="prepared with allow_leaks = True, but"):
        open_prepared(tmp_path, **SMALL)


def test_what_holds_no_leak_serves_where_they_are_allowed(data_dir):
    assert open_prepared(data_dir, **SMALL | {"allow_leaks": True})


def test_tfds_alone_opens_the_folder(tfds, data_dir, files):
    from tensorflow_datasets.core import dataset_metadata

    builder = tfds.builder_from_directory(folder_of(data_dir))
    assert builder.info.full_name == "arc_agi/custom/1.0.0"
    records = builder.as_data_source("tasks")
    assert [record["name"].tobytes().decode() for record in records] == [
        "a1", "β2", "c3", "d4", "e5"
    ]  # fmt: skip
    grid = np.array(files["first"]["a1"]["train"][0]["input"])
    np.testing.assert_array_equal(records[0]["sizes"][0, :2], grid.shape)
    np.testing.assert_array_equal(records[0]["cells"][: grid.size], grid.ravel())
    assert "licence" in builder.info.description.lower()
    assert "1911.01547" in builder.info.citation
    text = (ROOT / "data_pipeline" / "prepared" / "arc_agi" / "TAGS.txt").read_text()
    assert set() < set(text.split()) <= set(dataset_metadata.valid_tags())
