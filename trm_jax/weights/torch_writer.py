# SPDX-License-Identifier: Apache-2.0
"""Files that torch.load reads, written without torch."""

import math
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trm_jax.weights import torch_pickle as pickled
from trm_jax.weights.tensors import Tensor
from trm_jax.weights.torch_file import as_bytes

ALIGNMENT = 64  # bytes; torch places the tensors in a file so that it can map them


def write(path: Path, tensors: Mapping[str, Tensor], folder: str) -> None:
    """Write tensors as torch.save writes a state dict; `folder` is the archive's name.

    Raises OSError.
    """
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, content: Any) -> None:
            info = zipfile.ZipInfo(f"{folder}/{name}")
            info.file_size = len(content)
            start = archive.fp.tell() + 30 + len(info.filename) + 4  # type: ignore[union-attr]
            start += 20 * (info.file_size * 1.05 > zipfile.ZIP64_LIMIT)
            pad = -start % ALIGNMENT
            info.extra = b"FB" + struct.pack("<H", pad) + b"Z" * pad
            with archive.open(info, "w") as member:
                member.write(content)

        add("data.pkl", _pickle(tensors))
        add(".format_version", b"1")
        add(".storage_alignment", str(ALIGNMENT).encode())
        add("byteorder", b"little")
        for key, tensor in enumerate(tensors.values()):
            add(f"data/{key}", as_bytes(tensor.read()))
        add("version", b"3\n")


def _pickle(tensors: Mapping[str, Tensor]) -> bytes:
    """A dict of tensors in protocol 2; tensor number i is in the member data/i."""
    kinds = {dtype: name for name, dtype in pickled.STORAGES.items()}
    out = [b"\x80\x02}("]
    for key, (name, tensor) in enumerate(tensors.items()):
        shape = tensor.shape
        strides = [math.prod(shape[i + 1 :]) for i in range(len(shape))]
        out += [_text(name), _name(pickled.TENSOR), b"((", _text("storage")]
        out += [_name(f"torch.{kinds[tensor.dtype]}Storage"), _text(str(key))]
        out += [_text("cpu"), _number(math.prod(shape)), b"tQ", _number(0)]
        for numbers in (shape, strides):
            out += [b"(", *map(_number, numbers), b"t"]
        out += [b"\x89", _name(pickled.DICT), b")RtR"]
    return b"".join([*out, b"u."])


def _name(text: str) -> bytes:
    module, _, inner = text.rpartition(".")
    return f"c{module}\n{inner}\n".encode()


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def _number(value: int) -> bytes:
    if value < 2**31:
        return b"J" + struct.pack("<i", value)
    return b"\x8a\x08" + struct.pack("<q", value)
