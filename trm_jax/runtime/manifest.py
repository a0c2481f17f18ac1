# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint says about itself: shape, dtype and digest of every array."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt32

from trm_jax.errors import CheckpointError
from trm_jax.training.sharding import path_string
from trm_jax.types import TrainState

FORMAT = 2  # 1: the versions before rules


class DamagedError(Exception):
    """A checkpoint cannot be used; the message says why."""


def begin(state: TrainState) -> Callable[[], str]:
    """Start the digests on the devices; the function returned gives the manifest.

    The arrays may be donated in between: the function waits only for the digests.
    """
    step, leaves = int(state.step), _describe(state)
    sums = _digest_words(jax.tree.leaves(state))

    def text() -> str:
        for leaf, digest in zip(leaves.values(), _as_hex(sums), strict=True):
            leaf["digest"] = digest
        body = {"format": FORMAT, "step": step, "leaves": leaves}
        return json.dumps(body | {"checksum": _checksum(body)})

    return text


def read(path: Path, step: int) -> dict[str, Any]:
    """Path -> shape, dtype and digest of each array, as the manifest file has them.

    Raises:
      DamagedError: it is not a manifest, or that of another step.
      CheckpointError: it is of another format.
      ValueError, OSError: it cannot be read.
    """
    manifest = json.loads(path.read_bytes())
    if not isinstance(manifest, dict):
        raise DamagedError("the manifest is not a JSON object")
    body = {k: v for k, v in manifest.items() if k != "checksum"}
    if manifest.get("checksum") != _checksum(body):
        raise DamagedError("the manifest does not match its checksum")
    if body["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: step {step} is of format {body['format']}, expected {FORMAT}"
        )
    if body["step"] != step:
        raise DamagedError(f"the manifest is of step {body['step']}")
    return body["leaves"]


def check_fits(folder: Path, found: dict[str, Any], like: TrainState) -> None:
    """Raise CheckpointError where shapes or dtypes are not those of `like`."""
    wanted = _describe(like)
    for path in sorted(found.keys() | wanted.keys()):
        have = {k: v for k, v in found.get(path, {}).items() if k != "digest"}
        if have != wanted.get(path, {}):
            raise CheckpointError(
                f"{folder}: {path} is {have or 'absent'} in the checkpoint, "
                f"expected {wanted.get(path) or 'absent'}"
            )


def check_digests(expected: dict[str, Any], state: TrainState) -> None:
    """Raise DamagedError where an array is not the one that was saved."""
    found = leaf_digests(state)
    wrong = [p for p, leaf in expected.items() if found[p] != leaf["digest"]]
    if wrong:
        raise DamagedError(
            f"{len(wrong)} of {len(found)} arrays do not match their digest, "
            f"first {wrong[0]}"
        )


def leaf_digests(tree: Any) -> dict[str, str]:
    """Path -> 16 hex digits that depend on every bit and its position.

    Computed on the devices that hold the arrays, in integer arithmetic: the same for
    every sharding, and a change of a single word is always seen.
    """
    sums = _digest_words(jax.tree.leaves(tree))
    return dict(zip(_describe(tree), _as_hex(sums), strict=True))


def state_digest(tree: Any) -> str:
    """One SHA-256 over all leaf digests: equal trees, equal digest."""
    text = json.dumps([_describe(tree), leaf_digests(tree)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _as_hex(sums: UInt32[Array, "n 2"]) -> list[str]:
    return [f"{a:08x}{b:08x}" for a, b in np.asarray(sums)]


@jax.jit
def _digest_words(leaves: list[Array]) -> UInt32[Array, "n 2"]:
    return jnp.stack([_digest(leaf) for leaf in leaves])


def _digest(x: Array) -> UInt32[Array, " 2"]:
    """Two sums modulo 2**32 of words hashed together with their position.

    The hash permutes the words of each position: one changed word changes both sums.
    """
    if x.dtype == jnp.bool_:
        words = x.astype(jnp.uint32)
    else:
        bits = jnp.dtype(f"uint{8 * min(x.dtype.itemsize, 4)}")
        words = lax.bitcast_convert_type(x, bits).astype(jnp.uint32)
    index = jnp.arange(words.size, dtype=jnp.uint32).reshape(words.shape)
    salts = (jnp.uint32(0x9E3779B9), jnp.uint32(0x7F4A7C15))
    hashed = tuple(_mix(words ^ _mix(index ^ salt)) for salt in salts)
    # Both sums in one pass: two of them would each keep a copy of a large table.
    zeros, axes = (jnp.uint32(0),) * 2, tuple(range(words.ndim))
    sums = lax.reduce(hashed, zeros, lambda a, b: (a[0] + b[0], a[1] + b[1]), axes)
    return jnp.stack(sums)


def _mix(h: Array) -> Array:
    """The finaliser of MurmurHash3."""
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)


def _describe(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        path_string(path): {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
        for path, leaf in leaves
    }


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
