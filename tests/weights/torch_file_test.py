# SPDX-License-Identifier: Apache-2.0
"""Files of torch.save: what they may hold, and what is refused without running it."""

import os
import pickle
import random
import shutil
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.golden_trm import GOLDEN
from trm_jax.errors import CheckpointError
from trm_jax.weights import torch_file, torch_pickle, torch_writer
from trm_jax.weights.tensors import Tensor

FILE = GOLDEN / "torch" / "trm_attn" / "step_100"


@pytest.fixture
def file(tmp_path):
    return shutil.copy(FILE, tmp_path / "step_100")


def arrays():
    rng = np.random.default_rng(0)
    kinds = ["float32", "float64", "float16", "bfloat16", "int64", "uint8", "bool"]
    found = {k: rng.normal(size=(3, 5)).astype(jnp.dtype(k)) for k in kinds}
    return found | {
        "scalar": np.float32(3.5)[()] * np.ones(()),
        "empty": np.ones((0, 4)),
    }


def test_every_dtype_is_written_and_read(tmp_path):
    path = tmp_path / "x.pt"
    expected = arrays()
    tensors = {name: Tensor.of(array) for name, array in expected.items()}
    torch_writer.write(path, tensors, "x")
    found = torch_file.read(path)
    assert [*found] == [*expected]
    for name, array in expected.items():
        read = found[name].read()
        assert (read.dtype, read.shape) == (array.dtype, array.shape)
        assert read.tobytes() == array.tobytes()
    with zipfile.ZipFile(path) as archive, path.open("rb") as whole:
        for info in archive.infolist():  # as torch aligns them, to map them
            whole.seek(info.header_offset + 26)
            name, extra = np.frombuffer(whole.read(4), "<u2")
            assert (info.header_offset + 30 + int(name) + int(extra)) % 64 == 0


def with_pickle(path, data, members=None):
    """A file of the same layout with another pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", data)
        for name, content in (members or {}).items():
            archive.writestr(f"x/data/{name}", content)
    return path


def pickled(**views):
    """The pickle of a state dict with these views, written opcode by opcode."""
    out = [b"\x80\x02}("]
    number = torch_writer._number
    for name, (key, size, offset, shape, strides) in views.items():
        out += [torch_writer._text(name), torch_writer._name(torch_pickle.TENSOR)]
        out += [b"((", torch_writer._text("storage")]
        out += [torch_writer._name("torch.FloatStorage"), torch_writer._text(key)]
        out += [torch_writer._text("cpu"), number(size), b"tQ", number(offset)]
        for numbers in (shape, strides):
            out += [b"(", *map(number, numbers), b"t"]
        out += [b"\x89", torch_writer._name(torch_pickle.DICT), b")RtR"]
    return b"".join([*out, b"u."])


def test_views_into_a_storage_are_followed(tmp_path):
    numbers = np.arange(24, dtype=np.float32)
    data = pickled(
        part=("0", 24, 4, (2, 3), (3, 1)),
        turned=("0", 24, 0, (4, 6), (1, 4)),
        apart=("0", 24, 1, (3,), (8,)),
    )
    path = with_pickle(tmp_path / "x.pt", data, {"0": numbers.tobytes()})
    found = {name: t.read() for name, t in torch_file.read(path).items()}
    np.testing.assert_array_equal(found["part"], numbers[4:10].reshape(2, 3))
    np.testing.assert_array_equal(found["turned"], numbers.reshape(6, 4).T)
    np.testing.assert_array_equal(found["apart"], [1, 9, 17])
    rows = np.empty((1, 3), np.float32)
    torch_file.read(path)["part"].fill(rows)
    np.testing.assert_array_equal(rows, [numbers[4:7]])


@pytest.mark.parametrize(
    ("view", "members", "message"),
    [
        (("0", 6, 0, (2, 3), (3, 1)), {}, "data/0 is missing, expected 24 bytes"),
        (("0", 6, 0, (2, 3), (3, 1)), {"0": bytes(20)}, "20 bytes long, expected 24"),
        (("0", 6, 1, (2, 3), (3, 1)), {"0": bytes(24)}, "reaches beyond its member"),
        (("0", 6, 0, (2, 3), (9, 1)), {"0": bytes(24)}, "reaches beyond its member"),
        (("0", 6, 0, (2**40,), (0,)), {"0": bytes(24)}, "reaches beyond its member"),
        (("0", 2**50, 0, (2,), (1,)), {"0": bytes(24)}, "larger than the file"),
        (("0", 6, 0, (2, 3), (1,)), {"0": bytes(24)}, "its pickle is damaged"),
        (("../../x", 6, 0, (2, 3), (3, 1)), {}, r"data/../../x is missing"),
    ],
)
def test_tensors_that_do_not_fit_their_bytes_are_refused(
    view, members, message, tmp_path
):
    path = with_pickle(tmp_path / "x.pt", pickled(w=view), members)
    with pytest.raises(CheckpointError, match=message):
        torch_file.read(path)


class Call:
    """An object whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_a_function_is_refused_and_calls_nothing(
    protocol, tmp_path
):
    trace = tmp_path / "trace"
    data = pickle.dumps({"w": Call(os.system, f"touch {trace}")}, protocol)
    named = "opcode" if protocol == 0 else r"refers to posix\.system, which no state"
    with pytest.raises(CheckpointError, match=named):
        torch_file.read(with_pickle(tmp_path / "x.pt", data))
    assert not trace.exists()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x02cbuiltins\neval\n.", r"refers to builtins\.eval"),
        (b"\x80\x02c__builtin__\neval\n.", r"refers to __builtin__\.eval"),
        (b"\x80\x02ctorch._utils\n_rebuild_sparse_tensor\n.", "_rebuild_sparse_tensor"),
        (b"\x80\x02\x82\x01.", "opcode EXT1"),
        (b"\x80\x04\x8c\x01x\x8c\x01y\x93)\x81.", r"refers to x\.y"),
        (b"\x80\x04}\x94(\x8c\x01a\x8c\x01b\x93u.", r"refers to a\.b"),
        (b"\x80\x02}(", "its pickle is damaged"),
        (b"\x80\x02u.", "its pickle is damaged"),
        (b"\x80\x02h\x07.", "its pickle is damaged"),
        (b"\x80\x02}}s.", "its pickle is damaged"),
        (b"\x80\x02]q\x00h\x00\x61.", "holds list, expected a state dict"),
        (b"", "its pickle is damaged"),
        (b"\xff", "its pickle is damaged"),
        (b"\x80\x02K\x07.", "holds int, expected a state dict"),
        (b"\x80\x02}.", r"the keys \(none\) that has no state dict"),
    ],
)
def test_foreign_and_broken_pickles_are_refused_by_name(data, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        torch_file.read(with_pickle(tmp_path / "x.pt", data))


def nested(*keys):
    """A pickle {key: state dict, ..., "step": 7}."""
    (inner,) = [pickled(w=("0", 2, 0, (2,), (1,)))[2:-1]]
    out = b"\x80\x02}("
    for key in keys:
        out += torch_writer._text(key) + inner
    return out + torch_writer._text("step") + b"K\x07u."


def test_a_state_dict_may_lie_under_a_key(tmp_path):
    members = {"0": bytes(8)}
    path = with_pickle(tmp_path / "x.pt", nested("model"), members)
    assert [*torch_file.read(path)] == ["w"]
    with_pickle(path, nested("model", "ema"), members)
    message = "keys 'model', 'ema', 'step' that has 2 state dicts; expected one"
    with pytest.raises(CheckpointError, match=message):
        torch_file.read(path)
    with_pickle(path, nested(), members)
    with pytest.raises(CheckpointError, match="keys 'step' that has no state dict"):
        torch_file.read(path)


def test_packed_members_are_refused_before_they_grow(tmp_path):
    data = pickled(w=("0", 2**22, 0, (2**22,), (1,)))
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", data)
        archive.writestr("x/data/0", bytes(2**24))
    assert path.stat().st_size < 2**16
    with pytest.raises(CheckpointError, match="is compressed or encrypted, but torch"):
        torch_file.read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", data)
        archive.writestr("x/data/0", bytes(2**24), zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="claim to be larger than the file"):
        torch_file.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a file of torch.save: File is not a zip"),
        (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "torch wrote it before 1.6"),
        (b"just a text", "File is not a zip file"),
        (b"PK\x03\x04 and no more", "File is not a zip file"),
    ],
)
def test_other_files_are_refused(content, message, tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        torch_file.read(path)


def test_a_missing_file_and_another_archive_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="x.pt cannot be read .*No such file"):
        torch_file.read(tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("word/document.xml", "")
    with pytest.raises(CheckpointError, match="without one FOLDER/data.pkl"):
        torch_file.read(tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        archive.writestr("x/data.pkl", pickled())
        archive.writestr("x/byteorder", "big")
    with pytest.raises(CheckpointError, match="byte order is not little-endian"):
        torch_file.read(tmp_path / "x.pt")


def outcome(path):
    """The bytes of all tensors, or the message of the error."""
    try:
        return {name: t.read().tobytes() for name, t in torch_file.read(path).items()}
    except CheckpointError as error:
        return str(error)


def test_damage_is_found_or_harmless(file):
    """Cuts at any place, and flipped bits in any place."""
    content = FILE.read_bytes()
    intact, rng = outcome(FILE), random.Random(0)
    refused = 0
    for k in range(120):
        damaged = bytearray(content)
        if k % 3 == 0:
            del damaged[rng.randrange(len(content)) :]
        else:  # half of them where the names and sizes are
            place = rng.randrange(3000) if k % 3 == 1 else rng.randrange(len(content))
            damaged[place] ^= 1 << rng.randrange(8)
        with open(file, "wb") as out:
            out.write(damaged)
        found = outcome(file)
        refused += isinstance(found, str)
        if not isinstance(found, str):
            assert {*found.values()} == {*intact.values()}
        else:
            assert "\n" not in found
    assert refused > 80
