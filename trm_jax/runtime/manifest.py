# SPDX-License-Identifier: Apache-2.0
"""The manifest of a checkpoint: shape, dtype and digest of every array."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from trm_jax.errors import CheckpointError
from trm_jax.training.digest import as_hex, describe, digest_words, leaf_digests
from trm_jax.types import TrainState

FORMAT = 2  # format 1 was written before rules existed


class DamagedError(Exception):
    """A checkpoint cannot be used; the message says why."""


def begin(state: TrainState) -> Callable[[], str]:
    """Start the digests on the devices, and return a function that gives the manifest.

    The arrays may be donated before it is called: it waits only for the digests.
    """
    step, leaves = int(state.step), describe(state)
    sums = digest_words(jax.tree.leaves(state))

    def text() -> str:
        for leaf, digest in zip(leaves.values(), as_hex(sums), strict=True):
            leaf["digest"] = digest
        body = {"format": FORMAT, "step": step, "leaves": leaves}
        return json.dumps(body | {"checksum": _checksum(body)})

    return text


def read(path: Path, step: int) -> dict[str, Any]:
    """Read the manifest file: path -> shape, dtype and digest of each array.

    Raises:
      DamagedError: the file is not a manifest, or belongs to another step.
      CheckpointError: the manifest has another format.
      ValueError, OSError: the file cannot be read.
    """
    body = json.loads(path.read_bytes())
    if not isinstance(body, dict) or body.pop("checksum", "") != _checksum(body):
        raise DamagedError("the manifest does not match its checksum")
    if body["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: step {step} is of format {body['format']}, expected {FORMAT}"
        )
    if body["step"] != step:
        raise DamagedError(f"the manifest is of step {body['step']}")
    return body["leaves"]


def check_fits(folder: Path, found: dict[str, Any], like: TrainState) -> None:
    """Raise CheckpointError if shapes or dtypes differ from those of `like`.

    Fields that are None in `like` may hold anything.
    """
    wanted = describe(like)
    unread = tuple(f"{k}/" for k, v in like._asdict().items() if v is None)
    found = {path: leaf for path, leaf in found.items() if not path.startswith(unread)}
    for path in sorted(found.keys() | wanted.keys()):
        have = {k: v for k, v in found.get(path, {}).items() if k != "digest"}
        if have != wanted.get(path, {}):
            raise CheckpointError(
                f"{folder}: {path} is {have or 'absent'} in the checkpoint, "
                f"expected {wanted.get(path) or 'absent'}"
            )


def check_digests(expected: dict[str, Any], state: TrainState) -> None:
    """Raise DamagedError if an array differs from the one that was saved."""
    found = leaf_digests(state)
    wrong = [p for p, digest in found.items() if digest != expected[p]["digest"]]
    if wrong:
        raise DamagedError(
            f"{len(wrong)} of {len(found)} arrays do not match their digest, "
            f"first {wrong[0]}"
        )


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
