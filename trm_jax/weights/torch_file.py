# SPDX-License-Identifier: Apache-2.0
"""Files of torch.save, read without torch and without running code of the file."""

import itertools
import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from trm_jax.errors import CheckpointError
from trm_jax.weights import torch_pickle as pickled
from trm_jax.weights.tensors import PIECE, Tensor, one_line
from trm_jax.weights.torch_pickle import Storage, View

MOST_PICKLE = 2**26  # bytes; that of a state dict has some hundred per tensor
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)


def read(path: Path) -> dict[str, Tensor]:
    """The tensors of the state dict in a file, in its order.

    The file may hold the state dict itself, or a dict that has it under one of its
    keys. A tensor is compared with its checksum when it is read whole.

    Raises CheckpointError if the file is none of torch.save, is damaged, is packed
    unlike torch does it, or would run code when torch unpickles it.
    """
    source = str(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            root = _root(source, members)
            data = _small(archive, members, f"{root}/data.pkl", source)
            order = b"little"
            if f"{root}/byteorder" in members:
                order = _small(archive, members, f"{root}/byteorder", source)
    except _DAMAGE as error:
        raise _unreadable(path, error) from error
    if order != b"little":
        raise CheckpointError(f"{source}: its byte order is not little-endian")
    state = _state_dict(pickled.interpret(data, source), source)
    _check_storages(source, root, members, [view.storage for view in state.values()])
    return {
        name: _tensor(path, members[f"{root}/data/{view.storage.key}"], name, view)
        for name, view in state.items()
    }


def _root(source: str, members: Mapping[str, Any]) -> str:
    roots = [name[:-9] for name in members if name.count("/") == 1]
    roots = [root for root in roots if f"{root}/data.pkl" in members]
    if len({*roots}) != 1:
        raise CheckpointError(
            f"{source}: a zip archive without one FOLDER/data.pkl; expected a file of "
            "torch.save"
        )
    return roots[0]


def _small(
    archive: zipfile.ZipFile, members: Mapping[str, Any], name: str, source: str
) -> bytes:
    """The content of a member that is not a tensor."""
    _check_stored(source, members[name])
    if members[name].file_size > MOST_PICKLE:
        raise CheckpointError(
            f"{source}: {name} has {members[name].file_size:,} bytes; expected at most "
            f"{MOST_PICKLE:,}"
        )
    return archive.read(name)


def _check_stored(source: str, info: zipfile.ZipInfo) -> None:
    if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise CheckpointError(
            f"{source}: {info.filename} is compressed or encrypted, but torch.save "
            "stores it as it is"
        )


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    if isinstance(error, zipfile.BadZipFile) and _begins_with(path, b"\x80\x02"):
        reason = "torch wrote it before 1.6; load it there and save it again"
    else:
        reason = one_line(error)
    return CheckpointError(f"{path} cannot be read as a file of torch.save: {reason}")


def _begins_with(path: Path, magic: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(magic)) == magic


def _state_dict(value: Any, source: str) -> dict[str, View]:
    """The dict of tensors: the value, or the only such dict among its values."""
    if not isinstance(value, dict):
        kind = type(value).__name__
        raise CheckpointError(f"{source}: holds {kind}, expected a state dict")
    if _is_state_dict(value):
        return value
    inner = {key: v for key, v in value.items() if _is_state_dict(v)}
    if len(inner) == 1:
        return next(iter(inner.values()))
    keys = ", ".join(f"{key!r}"[:40] for key in itertools.islice(value, 8))
    what = f"{len(inner)} state dicts" if inner else "no state dict"
    raise CheckpointError(
        f"{source}: a dict with the keys {keys or '(none)'} that has {what}; expected "
        "one, as model.state_dict() returns it"
    )


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) for name in value)
        and all(isinstance(view, View) for view in value.values())
    )


def _check_storages(
    source: str, root: str, members: Mapping[str, Any], storages: list[Storage]
) -> None:
    """Raise CheckpointError if a member is missing, packed, or of another size.

    Members that share their bytes could claim any size in all: they are refused, too.
    """
    sizes = {s.key: s.size * s.dtype.itemsize for s in storages}
    if sum(sizes.values()) > Path(source).stat().st_size:
        raise CheckpointError(f"{source}: its tensors claim to be larger than the file")
    for storage in storages:
        info = members.get(f"{root}/data/{storage.key}")
        size = storage.size * storage.dtype.itemsize
        if info is None or info.file_size != size:
            found = "missing" if info is None else f"{info.file_size:,} bytes long"
            raise CheckpointError(
                f"{source}: the member data/{storage.key[:40]} is {found}, expected "
                f"{size:,} bytes"
            )
        _check_stored(source, info)


def _tensor(path: Path, info: zipfile.ZipInfo, name: str, view: View) -> Tensor:
    """A tensor that is read from its member when it is asked for."""
    dtype, shape = view.storage.dtype, view.shape
    pairs = [*zip(shape, view.strides, strict=True)]
    count = math.prod(shape)
    last = view.offset + sum((n - 1) * stride for n, stride in pairs)
    if count > view.storage.size or (count and last >= view.storage.size):
        raise CheckpointError(
            f"{path}: {name} reaches beyond its member of the archive"
        )
    inner = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
    in_order = all(n <= 1 or s == i for (n, s), i in zip(pairs, inner, strict=True))

    def fill(out: np.ndarray) -> None:
        skip, target = view.offset * dtype.itemsize, out
        if not in_order:
            skip, target = 0, np.empty(view.storage.size, dtype)
        try:
            if out.size:
                _stream(path, info, skip, target)
        except _DAMAGE as error:
            raise CheckpointError(f"{path}: {name}: {one_line(error)}") from error
        if not in_order:
            steps = [stride * dtype.itemsize for stride in view.strides]
            rows = np.lib.stride_tricks.as_strided(target[view.offset :], shape, steps)
            np.copyto(out, rows[: len(out)])

    return Tensor(shape, dtype, fill)


def _stream(path: Path, info: zipfile.ZipInfo, skip: int, out: np.ndarray) -> None:
    """Fill `out` with the bytes after the first `skip`, a piece at a time.

    zipfile compares the checksum when it comes to the end of the member.
    """
    target = as_bytes(out)
    with zipfile.ZipFile(path) as archive, archive.open(info) as member:
        while skip:
            skip -= len(member.read(min(skip, PIECE))) or _cut()
        while target:
            piece = member.read(min(len(target), PIECE))
            target[: len(piece)] = piece
            target = target[len(piece) or _cut() :]


def as_bytes(array: np.ndarray) -> memoryview:
    """The memory of an array; memoryview itself does not know bfloat16."""
    return array.reshape(-1).view(np.uint8).data


def _cut() -> int:
    raise EOFError("the file ends too early")
