# SPDX-License-Identifier: Apache-2.0
import os
import pathlib
import shutil
import subprocess
import sys
import time
import types

import numpy as np
import pytest

from data_pipeline import tasks
from data_pipeline.errors import DataError
from data_pipeline.spec import PuzzleSpec
from data_pipeline.sudoku import task
from data_pipeline.sudoku.csv_file import read_sudoku_csv
from data_pipeline.sudoku.grid import BLANK_TOKEN, SudokuShape, decode, encode
from data_pipeline.sudoku.symmetries import sample_symmetries

BAD = pathlib.Path(__file__).parent / "bad"
FOUR, NINE = SudokuShape(2, 2), SudokuShape(3, 3)
FIVE = read_sudoku_csv(BAD / "sudoku_ok.csv", NINE)
NUM_ROWS = 60


def load(box=(2, 2), **changes):
    section = {"box_rows": box[0], "box_cols": box[1]}
    if changes.get("source") == "generator":
        section["clues"] = (5, 8)
    return tasks.load({"sudoku": section, **changes})


def row_numbers(puzzles):
    return puzzles.attributes["rating"].tolist()


@pytest.fixture
def csv_file(tmp_path):
    """2x2 puzzles; the rating is the number of the row."""
    number = np.arange(NUM_ROWS)
    answers = sample_symmetries(FOUR, 0, number, number).apply(
        np.tile(encode("1234341221434321"), (NUM_ROWS, 1))
    )
    shown = np.random.default_rng(0).random(answers.shape) < 0.5
    columns = zip(np.where(shown, answers, BLANK_TOKEN), answers, strict=True)
    lines = [
        f"made,{decode(question)},{decode(answer)},{row}\n"
        for row, (question, answer) in enumerate(columns)
    ]
    path = tmp_path / "puzzles.csv"
    path.write_text("".join(["source,question,answer,rating\n", *lines]))
    return str(path)


@pytest.fixture
def array_folder(tmp_path):
    """The five puzzles of sudoku_ok.csv; their order is reversed in the test split."""
    folder = tmp_path / "arrays"
    for split in ("train", "test"):
        shutil.copytree(BAD / "built_ok" / "train", folder / split)
    for name in ("inputs", "labels"):
        path = folder / "test" / f"all__{name}.npy"
        np.save(path, np.load(path)[::-1])
    return str(folder)


@pytest.fixture
def hub(monkeypatch):
    """A function that replaces the hub's download by a given function."""

    def replace(download, cached=None):
        module = types.SimpleNamespace(
            hf_hub_download=download,
            try_to_load_from_cache=lambda *_, **__: cached,
            hf_hub_url=lambda *_, **__: "an address",
            get_hf_file_metadata=lambda _: None,
        )
        monkeypatch.setitem(sys.modules, "huggingface_hub", module)

    return replace


def test_csv_is_read_whole_by_default(csv_file):
    data = load(train=csv_file, test=csv_file)
    assert (
        row_numbers(data.train)
        == row_numbers(data.test.puzzles)
        == list(range(NUM_ROWS))
    )
    assert data.spec == FOUR.spec
    assert data.train_variants.num_forms.tolist() == [1] * NUM_ROWS
    assert [w for w in data.warnings if w.startswith("overlap")]


def test_subsets_are_seeded_and_keep_the_order_of_the_file(csv_file):
    def choose(**changes):
        sizes = {"train_puzzles": 20, "test_puzzles": 20}
        data = load(train=csv_file, test=csv_file, **(sizes | changes))
        return row_numbers(data.train), row_numbers(data.test.puzzles)

    train, test = choose(seed=0)
    assert len(train) == len(test) == 20
    assert train == sorted(set(train))
    assert test == sorted(set(test))
    assert train != test
    assert choose(seed=0) == (train, test)
    for other, same in zip(choose(seed=1), (train, test), strict=True):
        assert other != same
    assert choose(test_puzzles=0)[0] == train
    assert choose(train_puzzles=0)[1] == test


def test_subsets_are_the_same_in_every_release(csv_file):
    # Results name their data by seed and size. Never update these numbers.
    data = load(train=csv_file, test=csv_file, train_puzzles=6, test_puzzles=6)
    assert row_numbers(data.train) == [0, 15, 24, 28, 50, 54]
    assert row_numbers(data.test.puzzles) == [3, 8, 28, 35, 49, 59]


@pytest.mark.parametrize("key", ["train_puzzles", "test_puzzles"])
@pytest.mark.parametrize("count", [NUM_ROWS + 1])
def test_subset_that_the_source_cannot_give_is_refused(csv_file, key, count):
    with pytest.raises(DataError, match=rf"data\.{key} = {count}; .* {NUM_ROWS} "):
        load(train=csv_file, test=csv_file, **{key: count})


def test_arrays_are_read_from_their_folders(array_folder, tmp_path):
    box = {"source": "arrays", "box": (3, 3)}
    data = load(train=array_folder, **box)
    assert data.spec == NINE.spec
    assert data.train.digests() == FIVE.digests()
    assert data.test.puzzles.digests() == FIVE.subset(np.arange(5)[::-1]).digests()
    shutil.copytree(BAD / "built_ok" / "train", tmp_path / "other" / "test")
    other = load(train=array_folder, test=str(tmp_path / "other"), **box)
    assert other.test.puzzles.digests() == FIVE.digests()


def test_arrays_of_other_sizes_are_refused(array_folder):
    with pytest.raises(DataError, match=r"train/dataset\.json.*vocab_size=11.*=6"):
        load(source="arrays", train=array_folder)


def test_generated_puzzles_follow_the_seed():
    def make(seed):
        sizes = {"train_puzzles": 12, "test_puzzles": 5}
        return load(source="generator", seed=seed, **sizes)

    data = make(0)
    assert (len(data.train), len(data.test.puzzles)) == (12, 5)
    assert data.identity == make(0).identity
    assert data.identity != make(1).identity
    assert not FOUR.broken_units(data.train.labels).any()
    grids = np.concatenate([data.train.inputs, data.test.puzzles.inputs])
    assert len(np.unique(grids, axis=0)) == 17


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "go"}, r"data\.task = 'go'; expected one of sudoku, maze, arc"),
        ({"num_augmentations": -1}, r"data\.num_augmentations = -1; .* >= 0"),
        ({"train_puzzles": -1}, r"data\.train_puzzles = -1; expected .* >= 0"),
        ({"source": "web"}, r"data\.source = 'web'; expected one of csv, arrays"),
        ({"box": (4, 2)}, r"data\.sudoku\.box_rows = 4; expected .* >= 2 and <= 3"),
        ({"box": (3, 2)}, r"sudoku\.box_cols = 3x2; expected 2x2, 2x3 or 3x3"),
        ({"test": "x"}, r"data\.train is empty; .*'csv' needs --config\.data\.train="),
        ({"train": "x", "test": ""}, r"data\.test is empty"),
        ({"source": "arrays"}, r"data\.train is empty; .*'arrays' needs"),
        ({"source": "hub", "train": "x"}, r"'hub' reads no file.*data\.source=csv"),
        ({"source": "generator", "test": "x"}, "'generator' reads no file"),
        ({"source": "generator"}, r"data\.train_puzzles = 0; .* 1 to 10,000,000"),
        ({"seed": -1}, r"data\.seed = -1; expected a whole number >= 0 and <= 9"),
    ],
)
def test_wrong_settings_are_named(monkeypatch, changes, message):
    monkeypatch.setattr(task, "read_sudoku_csv", lambda *_: pytest.fail("read"))
    with pytest.raises(DataError, match=message):
        load(**changes)


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((2, 2), PuzzleSpec(6, (4, 4), blank=1, box_shape=(2, 2))),
        ((2, 3), PuzzleSpec(8, (6, 6), blank=1, box_shape=(2, 3))),
        ((3, 3), PuzzleSpec(11, (9, 9), blank=1, box_shape=(3, 3))),
    ],
)
def test_sizes_are_known_without_reading_anything(box, expected):
    sizes = dict(zip(("box_rows", "box_cols"), box, strict=True))
    assert tasks.spec_of({"sudoku": sizes, "train": "absent"}) == expected


def test_augmentation_is_seeded_and_moves_question_and_answer_alike(csv_file):
    keys = np.array([3, 3, 9]), np.array([0, 1, 2])
    for seed in (0, 1):
        data = load(train=csv_file, test=csv_file, num_augmentations=5, seed=seed)
        rows = data.train.inputs[keys[0]], data.train.labels[keys[0]]
        symmetry = sample_symmetries(FOUR, seed, *keys)
        forms = data.train_variants.apply(*keys, *rows)
        for found, tokens in zip(forms, rows, strict=True):
            np.testing.assert_array_equal(found, symmetry.apply(tokens))
            back = data.train_variants.undo(*keys, found)
            np.testing.assert_array_equal(back, tokens)


def test_identity_names_the_data_to_the_cell(csv_file, tmp_path):
    text = pathlib.Path(csv_file).read_text()
    first = text.split("\n")[1]
    given = next(c for c in first[len("made,") :] if c != ".")
    changed = tmp_path / "changed.csv"
    changed.write_text(text.replace(first, first.replace(given, ".", 1)))
    before = load(train=csv_file, test=csv_file).identity
    after = load(train=str(changed), test=csv_file).identity
    assert before["train"]["examples"] == NUM_ROWS
    assert before["test"] == after["test"] == before["train"]
    differing = {
        name
        for name, value in before["train"]["sha256"].items()
        if after["train"]["sha256"][name] != value
    }
    assert differing == {"inputs"}


def test_hub_files_are_read_like_csv(hub, csv_file):
    asked = []

    def download(*arguments, **options):
        asked.append((*arguments, options))
        return csv_file

    hub(download)
    data = load(source="hub")
    repository, options = "sapientinc/sudoku-extreme", {"repo_type": "dataset"}
    files = ("train.csv", "test.csv")
    assert asked == [(repository, file, options) for file in files]
    assert data.identity == load(train=csv_file, test=csv_file).identity


def test_hub_files_in_the_cache_are_not_asked_for(hub, csv_file):
    hub(unreachable, cached=csv_file)
    assert load(source="hub").identity == load(train=csv_file, test=csv_file).identity


def test_without_a_network_the_hub_is_given_up_within_seconds(tmp_path):
    pytest.importorskip("huggingface_hub", reason="needs the extra `data`")
    code = "from data_pipeline.hub import hub_file; hub_file('a/b', 'train.csv')"
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    start = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | nowhere,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert "cannot be downloaded from the hub" in done.stderr
    assert time.monotonic() - start < 20  # with the hub's retries 54 s


def unreachable(*_, **__):
    raise ConnectionError("no route\nmore of it")


@pytest.mark.parametrize("download", [None, unreachable], ids=["package", "network"])
def test_hub_that_cannot_be_had_tells_the_way_round(monkeypatch, hub, download):
    hub(download)
    if download is None:
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError) as caught:
        load(source="hub")
    message = str(caught.value)
    for part in ("data.source=csv", "data.train=", "data.test="):
        assert part in message
    reason = "ConnectionError: no route)" if download else "trm-jax[data]"
    assert reason in message
    assert "\n" not in message


def load_test(path, side=3):
    data = {"sudoku": {"box_rows": side, "box_cols": side}}
    return tasks.load_test(str(path), data).puzzles


def test_puzzles_to_evaluate_come_from_a_file_or_the_test_split(array_folder):
    assert load_test(BAD / "sudoku_ok.csv").digests() == FIVE.digests()
    shutil.rmtree(pathlib.Path(array_folder) / "train")
    expected = FIVE.subset(np.arange(5)[::-1])
    assert load_test(array_folder).digests() == expected.digests()


@pytest.mark.parametrize(
    ("path", "side", "message"),
    [
        ("absent.csv", 3, "absent.csv"),
        ("built_ok", 3, "test: not found"),
        ("sudoku_ok.csv", 2, "81 characters found, 16 expected"),
    ],
)
def test_puzzles_that_cannot_be_evaluated_are_named(path, side, message):
    with pytest.raises(DataError, match=message):
        load_test(BAD / path, side)
