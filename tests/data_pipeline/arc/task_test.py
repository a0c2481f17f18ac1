# SPDX-License-Identifier: Apache-2.0
import json
import pathlib
import shutil

import numpy as np
import pytest

from data_pipeline import tasks as pipeline
from data_pipeline.arc.augmentations import decode_augmentation
from data_pipeline.arc.grids import decode, encode
from data_pipeline.arc.ids import IdTable
from data_pipeline.arc.task import Settings
from data_pipeline.errors import DataError
from data_pipeline.loader import TrainLoader

OK = pathlib.Path(__file__).parents[1] / "bad" / "arc_ok"
CHALLENGES, SOLUTIONS = (
    f"arc-agi_training_{part}.json" for part in ("challenges", "solutions")
)
TASKS = json.loads((OK / CHALLENGES).read_text())
ANSWERS = json.loads((OK / SOLUTIONS).read_text())


def config(**changes):
    """A data config; each change goes to the section that has its key."""
    section = {"side": 12, "train_subsets": ("training",), "test_subset": "training"}
    common = {"task": "arc", "source": "json", "num_augmentations": 6}
    for key, value in changes.items():
        (section if hasattr(Settings, key) else common)[key] = value
    return common | {"arc": section}


def load(folder=OK, **changes):
    return pipeline.load(config(**{"train": str(folder)} | changes))


def as_other_subset(folder, subset, tasks):
    """Write these tasks of OK as another subset, with an x after their names."""
    folder.mkdir(exist_ok=True)
    for part, content in (("challenges", TASKS), ("solutions", ANSWERS)):
        text = json.dumps({f"{name}x": content[name] for name in tasks})
        (folder / f"arc-agi_{subset}_{part}.json").write_text(text)


def test_a_test_subset_is_trained_on_by_its_demonstrations_alone():
    data = load()
    demonstrations = [
        (pair["input"], pair["output"]) for t in TASKS.values() for pair in t["train"]
    ]
    tests = [
        (pair["input"], answer)
        for name, task in TASKS.items()
        for pair, answer in zip(task["test"], ANSWERS[name], strict=True)
    ]
    for puzzles, pairs in ((data.train, demonstrations), (data.test.puzzles, tests)):
        assert len(puzzles) == len(pairs)
        rows = zip(puzzles.inputs, puzzles.labels, strict=True)
        for tokens, grids in zip(rows, pairs, strict=True):
            for row, grid in zip(tokens, grids, strict=True):
                expected = encode(np.array(grid, np.uint8), 12)
                np.testing.assert_array_equal(row, expected)
    assert data.train.puzzle_ids.tolist() == [1, 8, 15]
    assert data.test.puzzles.puzzle_ids.tolist() == [1, 8, 15]
    assert data.spec.num_puzzles == 22 == data.identity["sizes"]["num_puzzles"]


def test_other_subsets_are_trained_on_whole(tmp_path):
    shutil.copytree(OK, tmp_path / "arc")
    as_other_subset(tmp_path / "arc", "concept", ["007bbfb7"])
    path = tmp_path / "arc" / f"arc-agi_concept_{'challenges'}.json"
    tasks = json.loads(path.read_text())
    (task,) = tasks.values()
    for pair in task["train"]:  # otherwise it would leak its original
        pair["input"] = pair["input"][::-1]
    task["test"][0]["input"] = task["test"][0]["input"][::-1]
    path.write_text(json.dumps(tasks))
    data = load(tmp_path / "arc", train_subsets=("concept", "training"))
    whole = len(TASKS["007bbfb7"]["train"]) + len(TASKS["007bbfb7"]["test"])
    assert np.diff(data.train.puzzle_starts)[0] == whole
    assert data.train.puzzle_ids.tolist() == [1, 8, 15, 22]
    assert data.test.puzzles.puzzle_ids.tolist() == [8, 15, 22]


def test_hidden_answers_change_neither_ids_nor_questions(tmp_path):
    hidden = tmp_path / "arc"
    hidden.mkdir()
    shutil.copy(OK / CHALLENGES, hidden)
    known, unknown = load(), load(hidden)
    assert unknown.test.id_map == known.test.id_map
    np.testing.assert_array_equal(
        unknown.test.puzzles.inputs, known.test.puzzles.inputs
    )
    assert not unknown.test.puzzles.labels.any()
    assert unknown.identity["train"] == known.identity["train"]


def test_answers_to_test_inputs_play_no_part_in_the_augmentations(tmp_path):
    # The known grids of this task have one colour, so that colour distinguishes its
    # forms. An answer with many colours would allow many more forms, if it were used.
    grid = [[1, 0], [0, 0]]
    task = {"train": [{"input": grid, "output": grid}], "test": [{"input": grid}]}
    (tmp_path / CHALLENGES).write_text(json.dumps({"one": task}))
    answer = [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    (tmp_path / SOLUTIONS).write_text(json.dumps({"one": [answer]}))
    data = load(tmp_path, num_augmentations=1_000)
    assert data.spec.num_puzzles == 1 + 4 * 9  # 4 corners, 9 colours


def test_what_is_trained_on_is_the_form_that_the_id_stands_for():
    data = load()
    loader = TrainLoader(
        data.train, batch_size=60, seed=0, variants=data.train_variants
    )
    batch = loader(3)
    table = data.train_variants
    codes = np.concatenate([[0], table._codes])  # id 0 is blank
    for tokens, puzzle_id in zip(batch["inputs"], batch["puzzle_id"], strict=True):
        puzzle = np.searchsorted(data.train.puzzle_ids, puzzle_id, side="right") - 1
        _, colours = decode_augmentation(codes[puzzle_id])
        stored = data.train.inputs[
            slice(*data.train.puzzle_starts[[puzzle, puzzle + 1]])
        ]
        shown = np.bincount(tokens[tokens > 1], minlength=12)[2:]
        counts = [np.bincount(row[row > 1], minlength=12)[2:] for row in stored]
        assert any((shown[colours] == count).all() for count in counts)


def test_answers_are_written_as_a_submission(tmp_path):
    test = load().test
    right = test.questions().labels
    answers = np.stack([right, np.zeros_like(right)], axis=1)
    test.write_submission(tmp_path / "s.json", answers)
    written = json.loads((tmp_path / "s.json").read_text())
    assert {n: [a["attempt_1"] for a in written[n]] for n in written} == ANSWERS
    assert all(a["attempt_2"] == [[0]] for n in written for a in written[n])


def test_tasks_are_chosen_by_number_and_by_size():
    chosen = load(test_puzzles=2, num_augmentations=0)
    assert len(chosen.test.puzzles.puzzle_ids) == 2
    assert chosen.spec.num_puzzles == 3
    assert any("2 of 3 test tasks" in warning for warning in chosen.warnings)
    assert load().warnings == []
    small = load(side=3, max_grid=3)  # 007bbfb7 has answers of 9x9
    for tokens in small.test.puzzles.inputs:
        assert decode(tokens, 3).shape == (3, 3)
    assert len(small.test.puzzles.puzzle_ids) == 2


@pytest.mark.parametrize("place", ["train input", "train output", "test", "solution"])
def test_a_grid_larger_than_any_of_arc_is_left_out_with_its_task(place, tmp_path):
    tasks, answers = (json.loads(json.dumps(part)) for part in (TASKS, ANSWERS))
    name, big = list(tasks)[1], [[1] * 40] * 31
    if place == "solution":
        answers[name][0] = big
    elif place == "test":
        tasks[name]["test"][0]["input"] = big
    else:
        tasks[name]["train"][0][place.split()[1]] = big
    for file, content in ((CHALLENGES, tasks), (SOLUTIONS, answers)):
        (tmp_path / file).write_text(json.dumps(content))
    with pytest.raises(DataError, match=rf"{name}: .*31x40, at most 30x30 expected"):
        load(tmp_path, side=30)
    left = load(tmp_path, side=30, max_grid=30)
    assert len(left.test.puzzles.puzzle_ids) == len(TASKS) - 1
    assert any("2 of 3 test tasks" in warning for warning in left.warnings)


def test_a_grid_beyond_any_canvas_is_refused_even_if_it_would_be_left_out(tmp_path):
    tasks = json.loads(json.dumps(TASKS))
    next(iter(tasks.values()))["train"][0]["input"] = [[1] * 256]
    (tmp_path / CHALLENGES).write_text(json.dumps(tasks))
    shutil.copy(OK / SOLUTIONS, tmp_path)
    with pytest.raises(DataError, match="1x256, at most 255x255 expected"):
        load(tmp_path, side=30, max_grid=30)


def test_a_canvas_larger_than_arc_takes_larger_grids(tmp_path):
    tasks = json.loads(json.dumps(TASKS))
    next(iter(tasks.values()))["train"][0]["input"] = [[1] * 31]
    (tmp_path / CHALLENGES).write_text(json.dumps(tasks))
    shutil.copy(OK / SOLUTIONS, tmp_path)
    assert len(load(tmp_path, side=31).test.puzzles.puzzle_ids) == len(TASKS)


def test_a_subset_of_ids_is_counted_anew():
    codes = [np.array(c, np.uint32) for c in ([0, 5], [0], [0, 7, 9])]
    table = IdTable.of(["a", "b", "c"], codes).subset(np.array([0, 2]))
    assert table.names == ["a", "c"]
    assert table.codes.tolist() == [0, 5, 0, 7, 9]
    assert table.starts.tolist() == [0, 2, 5]
    assert table.num_ids == 6
    assert table.digest != IdTable.of(["a", "d"], codes[::2]).digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "csv"}, r"data\.source = 'csv'; expected one of json, prepared"),
        ({"train": ""}, r"data\.train is empty"),
        ({"side": 8}, r"task 007bbfb7 has a grid of side 9.*max_grid=8"),
        ({"test_puzzles": 4}, r"test_puzzles = 4; the source holds 3"),
        ({"test_subset": "evaluation"}, "evaluation"),
        ({"max_grid": 1}, "no test task is left"),
    ],
)
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(DataError, match=message):
        load(**changes)


def test_files_that_have_moved_are_found_again(tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(OK, moved)
    as_other_subset(moved, "concept", ["007bbfb7"])
    subsets = {"train_subsets": ("concept", "training"), "allow_leaks": True}
    test = pipeline.load_test(str(moved), config(train="gone", **subsets))
    expected = load(moved, **subsets)
    assert test.id_map == expected.test.id_map
    (moved / "arc-agi_concept_challenges.json").unlink()
    with pytest.raises(DataError, match="gone"):
        pipeline.load_test(str(moved), config(train="gone", **subsets))


def test_sizes_are_those_of_the_data():
    data = load()
    keys = {k: v for k, v in data.identity["sizes"].items() if k != "num_puzzles"}
    assert keys == {"vocab_size": 12, "grid_shape": [12, 12], "blank": -1}
