# SPDX-License-Identifier: Apache-2.0
"""trm_jax.load: every kind of place that weights can be in."""

import json
import shutil
import sys
import types
from contextlib import closing
from pathlib import Path

import chex
import jax
import numpy as np
import pytest

import trm_jax
from data_pipeline import tasks
from tests.helpers import short_run
from tests.helpers.golden_trm import GOLDEN
from tests.weights.exchange_test import bundle_of
from trm_jax.errors import CheckpointError, ConfigError
from trm_jax.loading import open_weights
from trm_jax.runtime import workdir as workdirs
from trm_jax.runtime.checkpoint import Checkpoints
from trm_jax.runtime.weights import on_one_device
from trm_jax.training.build import build
from trm_jax.weights import exchange, places, published, torch_file
from trm_jax.weights.tensors import weights_digest


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir as training leaves it, whose weights are fresh, and its model."""
    folder = tmp_path_factory.mktemp("run") / "workdir"
    folder.mkdir()
    config = short_run.get_config().to_dict()
    identity = tasks.load(config["data"]).identity
    state = build(on_one_device(config), identity["sizes"]).init()
    average = jax.tree.map(lambda leaf: leaf / 2, state.params)
    workdirs.claim(folder, config, identity)
    workdirs.record_run(folder, 0)
    with closing(Checkpoints(folder, keep=1)) as saved:
        saved.save(state._replace(step=state.step + 6, ema_params=average))
    return folder, trm_jax.load(folder)


@pytest.fixture(scope="module")
def exported(run):
    folder = run[0].with_name("exported")
    exchange.write(folder, open_weights(run[0]))
    return folder


SIZES = {"vocab_size": 12, "grid_shape": (4, 4), "num_puzzles": 9, "blank": -1}


@pytest.fixture(scope="module")
def arc(tmp_path_factory):
    """A folder like those on the hub: ARC weights of a published kind."""
    config = trm_jax.get_config("arc_agi_1").to_dict()
    config["model"].update(d_model=32, prefix_len=4, dtype="float32")
    config["model"]["attention"]["num_heads"] = 2
    config["data"].update(source="arrays", train="data/arc", num_augmentations=0)
    config["data"]["arc"]["side"] = 30
    sizes = SIZES | {"grid_shape": (30, 30)}
    built = build(on_one_device(config), sizes)
    folder = tmp_path_factory.mktemp("arc") / "published"
    published.write(folder, bundle_of(built, config, sizes))
    return folder


def test_a_run_its_export_and_the_bare_file_are_the_same_model(run, exported):
    folder, model = run
    for place in (folder, exported, exported / "model.safetensors", str(exported)):
        found = trm_jax.load(place)
        weights = [(m.params, m.constants, m.table) for m in (found, model)]
        chex.assert_trees_all_equal(*weights)
        assert found.config == model.config
        assert repr(found) == repr(model)
    puzzle = "1.....3..4.....2"
    assert trm_jax.load(exported).solve(puzzle, steps=1).answer == (
        model.solve(puzzle, steps=1).answer
    )


def test_settings_that_an_old_export_lacks_take_their_defaults(exported, tmp_path):
    bundle = open_weights(exported)
    config = json.loads(json.dumps(bundle.record["config"]))
    del config["rule"]["loop"], config["rule"]["trm"]["unroll"], config["eval"]["seed"]
    old = bundle._replace(record=bundle.record | {"config": config})
    exchange.write(tmp_path / "old", old)
    model, again = trm_jax.load(exported), trm_jax.load(tmp_path / "old")
    assert again.config["rule"] == model.config["rule"]
    assert again.solve("." * 16).answer == model.solve("." * 16).answer
    config["rule"]["trm"]["new"] = 1
    exchange.write(tmp_path / "newer", old)
    with pytest.raises(ConfigError, match="rule.trm.new: unknown key"):
        trm_jax.load(tmp_path / "newer")


def test_the_record_says_where_the_weights_come_from(run, exported):
    about = exchange.read(exported).record["provenance"]
    assert set(about) >= {"git", "sources", "versions", "devices", "data"}
    assert len(about["data"]["train"]["sha256"]["inputs"]) == 64


def test_a_file_holds_one_step_and_one_kind_of_weights(run, exported):
    assert trm_jax.load(exported, step=6).step == 6
    with pytest.raises(CheckpointError, match="holds step 6, not 5"):
        trm_jax.load(exported, step=5)
    with pytest.raises(CheckpointError, match="holds the ema weights, not the raw"):
        trm_jax.load(exported, weights="raw")
    with pytest.raises(ConfigError, match="weights = 'mean'; expected ema or raw"):
        trm_jax.load(exported, weights="mean")
    with pytest.raises(ConfigError, match="table = 'none'; expected True, False"):
        trm_jax.load(exported, table="none")
    assert trm_jax.load(run[0], weights="raw").step == 6


def test_a_config_is_for_files(run, exported):
    config = short_run.get_config()
    config.eval.supervision_steps = 2
    model = trm_jax.load(exported, config=config)
    assert model.solve("1.....3..4.....2").steps == 2
    config.model.d_model = 64
    message = "not fit the config: constants/y is 32, expected 64; .*; and 4 more"
    with pytest.raises(CheckpointError, match=message):
        trm_jax.load(exported, config=config)
    with pytest.raises(ConfigError, match="a run has a config; no other can be given"):
        trm_jax.load(run[0], config=config)
    with pytest.raises(ConfigError, match="only for published PyTorch files"):
        trm_jax.load(exported, config="all_config.yaml")


def test_published_arc_weights_load_without_their_table(arc, monkeypatch):
    (file,) = arc.glob("step_*")
    whole = trm_jax.load(file)
    assert whole.step == 7
    assert whole.table.shape == (9, 32)
    assert (whole.config["data"]["task"], whole.config["data"]["train"]) == (
        *("arc", "data/arc"),
    )
    read = []
    stream = torch_file._stream

    def counted(path, info, skip, out):
        read.append(out.nbytes)
        stream(path, info, skip, out)

    monkeypatch.setattr(torch_file, "_stream", counted)
    blank = trm_jax.load(arc, table=False)
    chex.assert_trees_all_equal(blank.params, whole.params)
    np.testing.assert_array_equal(blank.table, whole.table[:1])
    assert read.count(32 * 4) == 3  # the constants, and one row of the table
    assert trm_jax.load(arc, table="reset").table.shape == (9, 32)
    with pytest.warns(UserWarning, match="the blank puzzle id is shown"):
        answer = blank.solve([[1, 2], [3, 4]], steps=1)
    assert answer.grid.ndim == 2


def test_published_weights_may_get_their_settings_as_arguments(arc, tmp_path):
    (file,) = arc.glob("step_*")
    copy = shutil.copy(file, tmp_path / "weights.bin")
    with pytest.raises(ConfigError, match="all_config.yaml: not found"):
        trm_jax.load(copy)
    expected = weights_digest(open_weights(file))
    by_yaml = open_weights(copy, config=arc / "all_config.yaml")
    ours = open_weights(copy, config=open_weights(file).record["config"])
    for bundle in (by_yaml, ours):
        assert weights_digest(bundle) == expected
        assert bundle.record["sizes"]["num_puzzles"] == 9
    config = trm_jax.get_config("smoke")
    config.rule.name = "one_latent"
    with pytest.raises(ConfigError, match="weights in the published layout are of trm"):
        open_weights(copy, config=config)


def test_shipped_weights_have_a_name(exported, tmp_path, monkeypatch):
    shutil.copytree(exported, tmp_path / "four")
    monkeypatch.setattr(places, "weights_folder", lambda: tmp_path)
    assert trm_jax.load("four").step == 6
    with pytest.raises(ConfigError, match=r"five: no such file .* \(shipped: four\)"):
        trm_jax.load("five")
    monkeypatch.setattr(places, "weights_folder", lambda: tmp_path / "none")
    with pytest.raises(ConfigError, match=r"\(shipped: none\)"):
        trm_jax.load("four")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub whose repositories are the folders OWNER/NAME of tmp_path."""
    fetched = []

    def model_info(repository):
        root = tmp_path / repository
        if not root.is_dir():
            raise ConnectionError("no route\nto host")
        names = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()]
        files = [types.SimpleNamespace(rfilename=name) for name in names]
        return types.SimpleNamespace(siblings=files)

    def hf_hub_download(repository, name):
        fetched.append(name)
        return str(tmp_path / repository / name)

    fake = types.SimpleNamespace(model_info=model_info, hf_hub_download=hf_hub_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return tmp_path, fetched


def test_weights_of_the_hub_are_downloaded(hub, arc, exported):
    root, fetched = hub
    shutil.copytree(arc, root / "someone" / "arc")
    shutil.copytree(exported, root / "someone" / "four")
    (root / "someone" / "arc" / "trm.py").write_text("import os")
    assert trm_jax.load("someone/arc", table=False).step == 7
    assert fetched == ["all_config.yaml", "step_7"]
    assert trm_jax.load("someone/four").step == 6
    assert fetched[2:] == ["model.safetensors"]


def test_a_repository_with_several_weights_needs_a_file(hub, arc):
    root, fetched = hub
    for name in ("v1", "v2"):
        shutil.copytree(arc, root / "someone" / "arc" / name)
    with pytest.raises(CheckpointError, match="found: v1/step_7, v2/step_7"):
        trm_jax.load("someone/arc")
    for name in ("someone/arc/v1", "someone/arc/v1/step_7"):
        fetched.clear()
        assert open_weights(name).record["step"] == 7
        assert fetched == ["v1/all_config.yaml", "v1/step_7"]
    with pytest.raises(CheckpointError, match="found: none"):
        trm_jax.load("someone/arc/v3")


def test_without_hub_or_network_the_message_says_so(hub, monkeypatch, tmp_path):
    with pytest.raises(CheckpointError, match="hub .*ConnectionError: no route"):
        trm_jax.load("someone/none")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install 'trm-jax\[data\]'"):
        trm_jax.load("someone/none")
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()  # a path with a slip in it is not looked up
    with pytest.raises(CheckpointError, match="runs/frist: No such file or directory"):
        trm_jax.load("runs/frist")
    with pytest.raises(CheckpointError, match="a/b: No such file"):
        trm_jax.load(Path("a/b"))


def test_a_folder_with_golden_weights_of_another_task_is_refused():
    with pytest.raises(ConfigError, match="no task has 7 tokens"):
        trm_jax.load(GOLDEN / "torch" / "trm_attn")
