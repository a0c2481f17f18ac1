# SPDX-License-Identifier: Apache-2.0
"""Digests of trees of arrays: equal bits give equal digests, on any mesh."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt32

from trm_jax.files import json_digest
from trm_jax.training.sharding import path_string

WEIGHTS = ("params", "ema_params", "constants", "puzzle_table")  # of a TrainState


def leaf_digests(tree: Any) -> dict[str, str]:
    """Path -> 16 hex digits that depend on every bit and its position.

    The digests are computed in integer arithmetic on the devices that hold the arrays.
    They do not depend on the sharding, and a change of a single word always shows.
    """
    sums = digest_words(jax.tree.leaves(tree))
    return dict(zip(describe(tree), as_hex(sums), strict=True))


def state_digest(tree: Any) -> str:
    """One SHA-256 over all leaf digests: equal trees give equal digests."""
    return json_digest([describe(tree), leaf_digests(tree)])


def not_finite(fields: dict[str, Any]) -> Callable[[], list[str]]:
    """Look for weights that are not finite; the result names their arrays.

    Of the fields of a TrainState, those of WEIGHTS count. The search runs on the
    devices; calling the result waits for it.
    """
    leaves = [
        (path_string(path), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            {name: fields[name] for name in WEIGHTS if fields.get(name) is not None}
        )
        if jnp.issubdtype(leaf.dtype, jnp.inexact)
    ]
    finite = _all_finite([leaf for _, leaf in leaves])
    return lambda: [
        path for (path, _), ok in zip(leaves, finite, strict=True) if not bool(ok)
    ]


@jax.jit
def _all_finite(leaves: list[Array]) -> list[Array]:
    return [jnp.isfinite(leaf).all() for leaf in leaves]


def as_hex(sums: UInt32[Array, "n 2"]) -> list[str]:
    """The digests as text."""
    return [f"{a:08x}{b:08x}" for a, b in np.asarray(sums)]


@jax.jit
def digest_words(leaves: list[Array]) -> UInt32[Array, "n 2"]:
    """Two words of digest for every array, on the devices that hold it."""
    return jnp.stack([_digest(leaf) for leaf in leaves])


def _digest(x: Array) -> UInt32[Array, " 2"]:
    """Two sums modulo 2**32 of words hashed together with their position.

    For each position the hash is a permutation of all words, so that a change of one
    word changes both sums.
    """
    if x.dtype == jnp.bool_:
        words = x.astype(jnp.uint32)
    else:
        bits = jnp.dtype(f"uint{8 * min(x.dtype.itemsize, 4)}")
        words = lax.bitcast_convert_type(x, bits).astype(jnp.uint32)
    index = jnp.arange(words.size, dtype=jnp.uint32).reshape(words.shape)
    salts = (jnp.uint32(0x9E3779B9), jnp.uint32(0x7F4A7C15))
    hashed = tuple(_mix(words ^ _mix(index ^ salt)) for salt in salts)
    # One pass computes both sums: two passes would each keep a copy of a large table.
    zeros, axes = (jnp.uint32(0),) * 2, tuple(range(words.ndim))
    sums = lax.reduce(hashed, zeros, lambda a, b: (a[0] + b[0], a[1] + b[1]), axes)
    return jnp.stack(sums)


def _mix(h: Array) -> Array:
    """The finaliser of MurmurHash3."""
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)


def describe(tree: Any) -> dict[str, Any]:
    """Path -> shape and dtype of every leaf."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        path_string(path): {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
        for path, leaf in leaves
    }
