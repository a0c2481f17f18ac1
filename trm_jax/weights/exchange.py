# SPDX-License-Identifier: Apache-2.0
"""The exchange format: model.safetensors, which loads alone, and config.json beside it.

The header of the safetensors file holds the record (config, sizes, step, digests of the
tensors) as JSON under the key "trm_jax"; config.json holds the same for people.
"""

import json
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from trm_jax.errors import CheckpointError, ConfigError, SaveError
from trm_jax.files import json_digest, sync, write_whole
from trm_jax.weights.tensors import PIECE, Bundle, Tensor, array_digest, one_line

MODEL, CONFIG = "model.safetensors", "config.json"
FORMAT = 1
KEY = "trm_jax"  # of the header's metadata
_KEYS = ("config", "sizes", "id_map", "step", "weights", "provenance", "digests")
_DTYPES = {
    **{f"F{bits}": np.dtype(f"float{bits}") for bits in (16, 32, 64)},
    **{f"I{bits}": np.dtype(f"int{bits}") for bits in (8, 16, 32, 64)},
    **{f"U{bits}": np.dtype(f"uint{bits}") for bits in (8, 16, 32, 64)},
    "BOOL": np.dtype(bool),
    "BF16": jnp.dtype("bfloat16"),
}


def write(folder: Path, bundle: Bundle) -> None:
    """Write the bundle as a new folder, which appears only when it is complete.

    Raises ConfigError if the folder exists, and SaveError if it cannot be written.
    """
    arrays = {name: tensor.read() for name, tensor in bundle.tensors.items()}
    body = {"format": FORMAT} | bundle.record
    body["digests"] = {name: array_digest(array) for name, array in arrays.items()}
    body = json.loads(json.dumps(body))
    record = body | {"checksum": json_digest(body)}

    def fill(draft: Path) -> None:
        save_file(arrays, draft / MODEL, metadata={KEY: json.dumps(record)})
        write_whole(draft / CONFIG, json.dumps(record, indent=2) + "\n", SaveError)
        (draft / MODEL).chmod((draft / CONFIG).stat().st_mode)  # it was for one user

    write_folder(folder, fill)


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` write files into a folder that appears only when it is complete."""
    if folder.exists() or folder.is_symlink():
        raise ConfigError(f"{folder} exists; choose a new name")
    draft = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.tmp")
    try:
        draft.mkdir(parents=True)
        fill(draft)
        for file in (*draft.iterdir(), draft):
            sync(file)
        draft.rename(folder)
        sync(folder.parent)
    except (OSError, SafetensorError) as error:
        raise SaveError(f"{folder} cannot be written: {one_line(error)}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def read(path: Path) -> Bundle:
    """The bundle of a folder, or of its safetensors file alone.

    A tensor is compared with its digest when it is read whole. Raises CheckpointError.
    """
    file = path / MODEL if path.is_dir() else path
    try:
        with safe_open(file, "numpy") as opened:
            metadata = opened.metadata() or {}
            names = opened.keys()
            shapes = {name: opened.get_slice(name).get_shape() for name in names}
            kinds = {name: opened.get_slice(name).get_dtype() for name in names}
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {one_line(error)}") from error
    record = _record(file, metadata)
    if path.is_dir():
        _check_config(path / CONFIG, record)
    expected = record["digests"]
    for name in dict.fromkeys([*expected, *shapes]):
        if name not in shapes or name not in expected:
            problem = "is missing" if name in expected else "does not belong there"
            raise CheckpointError(f"{file}: the tensor {name} {problem}")
        if kinds[name] not in _DTYPES:
            raise CheckpointError(f"{file}: {name} has the dtype {kinds[name]}")

    def tensor(name: str) -> Tensor:
        shape, dtype = tuple(shapes[name]), _DTYPES[kinds[name]]
        return Tensor(shape, dtype, lambda out: _fill(file, name, expected[name], out))

    tensors = {name: tensor(name) for name in shapes}
    del record["digests"]
    return Bundle(str(file), record, tensors)


def _fill(file: Path, name: str, digest: str, out: np.ndarray) -> None:
    """Read the first rows piece by piece, and check the digest of a whole tensor."""
    try:
        with safe_open(file, "numpy") as opened:
            if not out.ndim:
                np.copyto(out, opened.get_tensor(name))
                return
            rows = opened.get_slice(name)
            is_whole = len(out) == rows.get_shape()[0]
            step = max(1, PIECE // max(1, out[:1].nbytes))
            for first in range(0, len(out), step):
                last = min(first + step, len(out))
                out[first:last] = rows[first:last]
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{file}: {name}: {one_line(error)}") from error
    if is_whole and array_digest(out) != digest:
        raise CheckpointError(f"{file}: {name} does not match its digest: damaged")


def _record(file: Path, metadata: dict[str, str]) -> dict[str, Any]:
    """The record in the header, without its checksum. Raises CheckpointError."""
    if KEY not in metadata:
        raise CheckpointError(
            f"{file}: its header has no record of trm_jax, so that the config of these "
            "weights is unknown; expected a file that trm_jax.commands.export wrote"
        )
    try:
        record = json.loads(metadata[KEY])
        checksum = record.pop("checksum")
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file}: the record in its header is broken") from error
    if checksum != json_digest(record):
        raise CheckpointError(f"{file}: the record in its header is damaged")
    if record.pop("format", None) != FORMAT or {*record} != {*_KEYS}:
        raise CheckpointError(f"{file}: its record is not of format {FORMAT}")
    return record


def _check_config(path: Path, record: dict[str, Any]) -> None:
    """Raise CheckpointError if config.json tells something else than the header."""
    try:
        body = json.loads(path.read_bytes())
        same = {key: body[key] for key in _KEYS} == record
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} cannot be read: {one_line(error)}") from error
    if not same:
        raise CheckpointError(
            f"{path} differs from the record in the header of {MODEL}, which counts; "
            f"undo the change, or load {path.with_name(MODEL)} alone"
        )
