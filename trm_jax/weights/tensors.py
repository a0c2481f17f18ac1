# SPDX-License-Identifier: Apache-2.0
"""Named tensors of a file with their record, and how they become a model's weights."""

import hashlib
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from trm_jax.errors import CheckpointError
from trm_jax.files import json_digest
from trm_jax.training.build import Built
from trm_jax.training.sharding import path_string

TABLE = "puzzle_table"
PIECE = 2**24  # bytes that are read at a time
TABLE_MODES = ("keep", "mean", "reset")


class Tensor(NamedTuple):
    """An array in a file. It is read only by `read` and `fill`."""

    shape: tuple[int, ...]
    dtype: np.dtype
    # Reads as many of the first rows as the argument has, into the argument.
    fill: Callable[[np.ndarray], None]

    @classmethod
    def of(cls, array: Any) -> "Tensor":
        """A tensor that is in memory."""
        array = np.asarray(array)

        def fill(out: np.ndarray) -> None:
            np.copyto(out, array[: len(out)] if array.ndim else array)

        return cls(array.shape, array.dtype, fill)

    def read(self) -> np.ndarray:
        """The whole array."""
        out = np.empty(self.shape, self.dtype)
        self.fill(out)
        return out

    def transposed(self) -> "Tensor":
        """The same tensor with its axes reversed."""

        def fill(out: np.ndarray) -> None:
            np.copyto(out, self.read().T[: len(out)])

        return self._replace(shape=self.shape[::-1], fill=fill)


class Bundle(NamedTuple):
    """Tensors by name (`params/...`, `constants/...`, `puzzle_table`), and a record.

    The keys of `record` are config, sizes, id_map, step, weights ("ema", "raw", or
    "published" if the file does not say) and provenance. The table has one row per id.
    """

    source: str  # for messages
    record: dict[str, Any]
    tensors: dict[str, Tensor]


def array_digest(array: np.ndarray) -> str:
    """SHA-256 over dtype, shape and bytes in C order."""
    sha = hashlib.sha256(f"{array.dtype}{array.shape}".encode())
    sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return sha.hexdigest()


def digests(bundle: Bundle) -> dict[str, str]:
    """The digest of each tensor, by name; all tensors are read, one at a time."""
    return {k: array_digest(t.read()) for k, t in bundle.tensors.items()}


def weights_digest(bundle: Bundle) -> str:
    """One SHA-256 of all tensors, in whatever kind of file they are."""
    return json_digest(digests(bundle))


def named_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by path: `net/0_attention/qkv/kernel`."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_string(path): leaf for path, leaf in leaves}


def to_weights(
    bundle: Bundle, built: Built, *, table: str = "keep", flag: str = "table"
) -> tuple[Any, Any, jax.Array]:
    """Parameters, constants and puzzle table, placed on the mesh of `built`.

    `table`: "keep" expects one row per id of the config; "mean" gives every id the mean
    of the rows, as the published code does; "reset" gives zeros; "blank" reads only the
    row of the blank id. `flag` is what messages call this choice. Tensors are widened
    to the dtype of the config, but never rounded.

    Raises CheckpointError if names, shapes or dtypes do not fit, or if a value is not
    finite.
    """
    like = built.state_like
    tree = {"params": like.params, "constants": like.constants}
    leaves = named_leaves(tree)
    _check_fits(bundle, leaves)
    read = []
    for path, leaf in leaves.items():
        array = bundle.tensors[path].read().astype(leaf.dtype)
        _check_finite(bundle, path, array)
        read.append(_placed(array, leaf))
    whole = jax.tree.unflatten(jax.tree.structure(tree), read)
    rows = built.recipe.model.config.num_puzzles
    array = _table(bundle, like.puzzle_table, rows, table, flag)
    return whole["params"], whole["constants"], _placed(array, like.puzzle_table)


def _table(bundle: Bundle, like: Any, rows: int, mode: str, flag: str) -> np.ndarray:
    """The table with its rows of zeros that no id refers to."""
    out = np.zeros(like.shape, like.dtype)
    if mode == "reset":
        return out
    source = bundle.tensors.get(TABLE)
    if source is None or len(source.shape) != 2 or source.shape[1] != like.shape[1]:
        found = _size(source.shape) if source else "absent"
        raise CheckpointError(
            f"{bundle.source}: {TABLE} is {found}, but the config expects rows of "
            f"{like.shape[1]}; {flag}=reset starts with zeros"
        )
    _check_dtype(bundle, TABLE, source, like.dtype)
    if mode == "mean":
        out[:rows] = source.read().mean(0, dtype=np.float64)
    elif mode == "keep" and source.shape[0] != rows:
        raise CheckpointError(
            f"{bundle.source}: {TABLE} has {source.shape[0]:,} rows, but the config "
            f"has {rows:,} puzzle ids; {flag}=mean gives each id the mean of the rows, "
            f"and {flag}=reset zeros"
        )
    elif source.dtype == out.dtype:
        source.fill(out[:rows])
    else:
        out[:rows] = source.read()[:rows]
    _check_finite(bundle, TABLE, out)
    return out


def _check_fits(bundle: Bundle, leaves: dict[str, Any]) -> None:
    """Raise CheckpointError with the first tensors that differ from `leaves`."""
    found = {k: t for k, t in bundle.tensors.items() if k != TABLE}
    wrong = [
        f"{path} is {_size(found[path].shape) if path in found else 'absent'}, "
        f"expected {_size(leaves[path].shape) if path in leaves else 'no such tensor'}"
        for path in dict.fromkeys([*leaves, *found])
        if path not in found
        or path not in leaves
        or found[path].shape != leaves[path].shape
    ]
    if wrong:
        more = f"; and {len(wrong) - 3} more" * (len(wrong) > 3)
        raise CheckpointError(
            f"{bundle.source} does not fit the config: {'; '.join(wrong[:3])}{more}"
        )
    for path, leaf in leaves.items():
        _check_dtype(bundle, path, found[path], leaf.dtype)


def _check_dtype(bundle: Bundle, path: str, tensor: Tensor, wanted: Any) -> None:
    if not np.can_cast(tensor.dtype, wanted, "safe"):
        raise CheckpointError(
            f"{bundle.source}: {path} is {tensor.dtype}, expected {wanted}"
        )


def _check_finite(bundle: Bundle, path: str, array: np.ndarray) -> None:
    if not all(np.isfinite(piece).all() for piece in _pieces(array)):
        raise CheckpointError(f"{bundle.source}: {path} has values that are not finite")


def _pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """Parts of an array, so that what is computed of each stays small."""
    flat = array.reshape(-1)
    for first in range(0, flat.size, PIECE):
        yield flat[first : first + PIECE]


def _placed(array: np.ndarray, like: Any) -> jax.Array:
    """The array with the sharding of `like`; each process holds its own part."""
    return jax.make_array_from_callback(
        array.shape, like.sharding, lambda index: array[index]
    )


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a number"


def one_line(text: object) -> str:
    """A message of a library as one short line."""
    return re.sub(r"\s+", " ", str(text)).strip()[:200]
