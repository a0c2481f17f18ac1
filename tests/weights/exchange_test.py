# SPDX-License-Identifier: Apache-2.0
"""The exchange format: every bit survives, and damage shows."""

import json
import random
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tests.helpers.tiny import SIZES, tiny_built, tiny_config
from trm_jax.errors import CheckpointError, ConfigError, SaveError
from trm_jax.training.build import build
from trm_jax.weights import exchange
from trm_jax.weights.tensors import (
    TABLE,
    Bundle,
    Tensor,
    named_leaves,
    to_weights,
    weights_digest,
)


def bundle_of(built, config, sizes=SIZES):
    """The fresh weights of a tiny run, with noise in the table."""
    state = built.init()
    leaves = named_leaves({"params": state.params, "constants": state.constants})
    rng, shape = np.random.default_rng(0), (sizes["num_puzzles"], 32)
    leaves[TABLE] = rng.normal(size=shape).astype(state.puzzle_table.dtype)
    record = {
        "config": json.loads(json.dumps(config)),
        "sizes": json.loads(json.dumps(sizes)),
        "id_map": None,
        "step": 7,
        "weights": "ema",
        "provenance": {},
    }
    tensors = {name: Tensor.of(leaf) for name, leaf in leaves.items()}
    return Bundle("here", record, tensors)


@pytest.fixture(scope="module")
def tiny():
    built = tiny_built()
    return built, bundle_of(built, tiny_config())


@pytest.fixture(scope="module")
def written(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    exchange.write(folder, tiny[1])
    return folder


def test_a_folder_and_its_bare_file_hold_the_same(tiny, written):
    built, bundle = tiny
    assert sorted(p.name for p in written.iterdir()) == sorted(
        [exchange.CONFIG, exchange.MODEL]
    )
    for place in (written, written / exchange.MODEL):
        found = exchange.read(place)
        assert found.record == bundle.record
        assert weights_digest(found) == weights_digest(bundle)
        params, constants, table = to_weights(found, built)
        leaves = named_leaves({"params": params, "constants": constants, TABLE: table})
        for name, leaf in leaves.items():
            assert np.asarray(leaf).tobytes() == bundle.tensors[name].read().tobytes()
    arrays = load_file(written / exchange.MODEL)  # as any other program reads it
    assert {*arrays} == {*bundle.tensors}
    assert "params/net/0_attention/qkv/kernel" in arrays


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "int32"])
def test_every_dtype_survives(dtype, tiny, tmp_path):
    array = (np.arange(12).reshape(3, 4) / 7).astype(jnp.dtype(dtype))
    exchange.write(tmp_path / "x", tiny[1]._replace(tensors={"a": Tensor.of(array)}))
    found = exchange.read(tmp_path / "x").tensors["a"]
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.read().tobytes() == array.tobytes()
    first = np.empty((2, 4), array.dtype)
    found.fill(first)
    assert first.tobytes() == array[:2].tobytes()


def test_float64_weights_stay_float64(tmp_path):
    with jax.enable_x64(True):
        built = tiny_built()
        bundle = bundle_of(built, tiny_config({"model.dtype": "float64"}))
        exchange.write(tmp_path / "x", bundle)
        params, _, table = to_weights(exchange.read(tmp_path / "x"), built)
    assert params["embed_tokens"].dtype == table.dtype == np.float64
    assert weights_digest(exchange.read(tmp_path / "x")) == weights_digest(bundle)
    with pytest.raises(CheckpointError, match="is float64, expected float32"):
        to_weights(exchange.read(tmp_path / "x"), tiny_built())


def with_tensors(written, tmp_path, change):
    """The file with other tensors under the same record."""
    arrays = load_file(written / exchange.MODEL)
    change(arrays)
    metadata = {exchange.KEY: (written / exchange.CONFIG).read_text()}
    save_file(arrays, tmp_path / "x.safetensors", metadata=metadata)
    return tmp_path / "x.safetensors"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("params/halt_bias"), "params/halt_bias is missing"),
        (lambda a: a.update(more=np.ones(3)), "tensor more does not belong there"),
        (
            lambda a: a.update({"constants/y": a["constants/y"].astype(np.float64)}),
            "constants/y is float64, expected float32",
        ),
        (
            lambda a: a.update({"constants/y": -a["constants/y"]}),
            "constants/y does not match its digest: damaged",
        ),
        (
            lambda a: a.update({"constants/y": a["constants/y"][:-1].copy()}),
            "constants/y is 31, expected 32",
        ),
    ],
)
def test_other_tensors_than_recorded_are_refused(
    change, message, written, tiny, tmp_path
):
    file = with_tensors(written, tmp_path, change)
    with pytest.raises(CheckpointError, match=message):
        to_weights(exchange.read(file), tiny[0])


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (None, "its header has no record of trm_jax"),
        ({exchange.KEY: "{"}, "the record in its header is broken"),
        ({exchange.KEY: "[]"}, "the record in its header is broken"),
        ({exchange.KEY: '{"checksum": "0"}'}, "the record in its header is damaged"),
    ],
)
def test_files_of_others_are_refused(metadata, message, tmp_path):
    file = tmp_path / "x.safetensors"
    save_file({"a": np.ones(3)}, file, metadata=metadata)
    with pytest.raises(CheckpointError, match=message):
        exchange.read(file)


def test_a_changed_config_json_is_noticed(written, tmp_path):
    for name in (exchange.MODEL, exchange.CONFIG):
        (tmp_path / name).write_bytes((written / name).read_bytes())
    assert exchange.read(tmp_path).record["step"] == 7
    body = json.loads((tmp_path / exchange.CONFIG).read_text())
    (tmp_path / exchange.CONFIG).write_text(json.dumps(body | {"step": 8}))
    with pytest.raises(CheckpointError, match="differs from the record in the header"):
        exchange.read(tmp_path)
    (tmp_path / exchange.CONFIG).unlink()
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read: "):
        exchange.read(tmp_path)


def outcome(file):
    """The digest of all tensors, or the message of the error."""
    try:
        return weights_digest(exchange.read(file))
    except CheckpointError as error:
        return str(error)


def test_damage_is_found(written, tiny, tmp_path):
    """Cuts at any place, and flipped bits in the header and in the tensors."""
    content, rng = (written / exchange.MODEL).read_bytes(), random.Random(0)
    (header,) = struct.unpack("<Q", content[:8])
    file, expected = tmp_path / "x.safetensors", weights_digest(tiny[1])
    refused = 0
    for k in range(90):
        damaged = bytearray(content)
        if k % 3 == 0:
            del damaged[rng.randrange(len(content)) :]
        else:
            place = rng.randrange(8 + header if k % 3 == 1 else len(content))
            damaged[place] ^= 1 << rng.randrange(8)
        file.write_bytes(damaged)
        found = outcome(file)
        assert found == expected or found.startswith(str(file)), place
        assert "\n" not in found
        refused += found != expected
    assert refused > 80


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\0" * 100, b"text" * 9])
def test_other_files_are_refused(content, tmp_path):
    file = tmp_path / "x.safetensors"
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.safetensors cannot be read: "):
        exchange.read(file)


def test_an_existing_folder_is_kept_and_a_failed_one_leaves_nothing(
    written, tiny, tmp_path, monkeypatch
):
    with pytest.raises(ConfigError, match="exists; choose a new name"):
        exchange.write(written, tiny[1])
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveError, match="x cannot be written: .*Not a directory"):
        exchange.write(tmp_path / "file" / "x", tiny[1])

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exchange, "save_file", full)
    with pytest.raises(SaveError, match="x cannot be written: .*No space left"):
        exchange.write(tmp_path / "x", tiny[1])
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def table_after(bundle, num_puzzles, mode):
    sizes = SIZES | {"num_puzzles": num_puzzles}
    built = build(tiny_config(), sizes)
    return np.asarray(to_weights(bundle, built, table=mode, flag="--init_table")[2])


def test_the_table_changes_only_as_it_is_told(tiny):
    bundle = tiny[1]
    rows = bundle.tensors[TABLE].read()
    np.testing.assert_array_equal(table_after(bundle, 5, "keep"), rows)
    with pytest.raises(CheckpointError, match="has 5 rows, .* 7 puzzle ids; --init_"):
        table_after(bundle, 7, "keep")
    mean = table_after(bundle, 7, "mean")
    assert mean.shape == (7, 32)
    np.testing.assert_allclose(mean, np.tile(rows.mean(0), (7, 1)), rtol=1e-5)
    np.testing.assert_array_equal(table_after(bundle, 7, "reset"), np.zeros((7, 32)))
    np.testing.assert_array_equal(table_after(bundle, 1, "blank"), rows[:1])
    large = table_after(bundle, 4000, "mean")  # padded: see sharding.table_rows
    assert large.shape == (6144, 32)
    assert not large[4000:].any()
    assert large[:4000].all()


def test_a_table_of_another_width_can_only_be_reset(tiny):
    bundle = tiny[1]
    narrow = bundle._replace(
        tensors=bundle.tensors | {TABLE: Tensor.of(np.ones((5, 8)))}
    )
    with pytest.raises(CheckpointError, match="is 5x8, .* of 32; --init_table=reset"):
        table_after(narrow, 5, "mean")
    assert not table_after(narrow, 5, "reset").any()


def test_numbers_that_are_not_finite_are_refused(tiny):
    built, bundle = tiny
    for name in (TABLE, "params/halt_bias"):
        array = bundle.tensors[name].read()
        array.flat[-1] = np.nan
        broken = bundle._replace(tensors=bundle.tensors | {name: Tensor.of(array)})
        with pytest.raises(CheckpointError, match=f"{name} has values that are not"):
            to_weights(broken, built)
