# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint says about itself: shape, dtype and digest of every array."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from trm_jax.errors import CheckpointError
from trm_jax.training.digest import as_hex, describe, digest_words, leaf_digests
from trm_jax.types import TrainState

FORMAT = 2  # 1: the versions before rules


class DamagedError(Exception):
    """A checkpoint cannot be used; the message says why."""


def begin(state: TrainState) -> Callable[[], str]:
    """Start the digests on the devices; the function returned gives the manifest.

    The arrays may be donated in between: the function waits only for the digests.
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
    """Path -> shape, dtype and digest of each array, as the manifest file has them.

    Raises:
      DamagedError: it is not a manifest, or that of another step.
      CheckpointError: it is of another format.
      ValueError, OSError: it cannot be read.
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
    """Raise CheckpointError where shapes or dtypes are not those of `like`.

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
    """Raise DamagedError where an array is not the one that was saved."""
    found = leaf_digests(state)
    wrong = [p for p, digest in found.items() if digest != expected[p]["digest"]]
    if wrong:
        raise DamagedError(
            f"{len(wrong)} of {len(found)} arrays do not match their digest, "
            f"first {wrong[0]}"
        )


def _checksum(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
