# SPDX-License-Identifier: Apache-2.0
"""The manifest of a checkpoint: digests of every array, every file and other records.

The digests of arrays show whether a state was restored as it was saved. The digests of
files show whether an error in reading is due to damage or to a lack of resources.
"""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from trm_jax.errors import CheckpointError, SaveError, reason_of
from trm_jax.files import file_digest, json_digest
from trm_jax.training.digest import (
    as_hex,
    describe,
    digest_words,
    leaf_digests,
    not_finite,
)
from trm_jax.types import TrainState

FORMAT = 2  # format 1 was written before rules existed
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)  # errors that are damage


class DamagedError(Exception):
    """A checkpoint cannot be used; the message says why."""


def begin(state: TrainState, records: dict[str, Any]) -> Callable[[Path], str]:
    """Start the digests on the devices, and return a function that gives the manifest.

    It takes the folder of the written state. The arrays may be donated before it is
    called: it waits only for the digests. It raises SaveError if weights, their average
    or the puzzle table are not finite.
    """
    step, leaves = int(state.step), describe(state)
    sums = digest_words(jax.tree.leaves(state))
    unusable = not_finite(state._asdict())

    def text(folder: Path) -> str:
        if wrong := unusable():
            raise SaveError(f"{wrong[0]} has values that are not finite")
        for leaf, digest in zip(leaves.values(), as_hex(sums), strict=True):
            leaf["digest"] = digest
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        body = {
            "format": FORMAT,
            "step": step,
            "leaves": leaves,
            "files": {str(f.relative_to(folder)): file_digest(f) for f in files},
            "records": records,
        }
        return json.dumps(body | {"checksum": json_digest(body)})

    return text


def damaged_file(folder: Path, expected: dict[str, str]) -> str | None:
    """The first file of a state that is missing or differs from the one that was saved.

    A file that cannot be read for another reason, such as permissions, does not count.
    """
    for name, digest in expected.items():
        try:
            if file_digest(folder / name) != digest:
                return name
        except OSError as error:
            if error.errno in _GONE:
                return name
    return None


def read(path: Path, step: int) -> dict[str, Any]:
    """Read the manifest file: `leaves`, `files` and `records` by name.

    Raises:
      DamagedError: the file is missing, not a manifest, or belongs to another step.
      CheckpointError: the manifest has another format, or cannot be read now.
    """
    try:
        body = json.loads(path.read_bytes())
    except OSError as error:
        kind = DamagedError if error.errno in _GONE else CheckpointError
        raise kind(f"cannot be read: {reason_of(error)}") from error
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"the manifest is not JSON: {reason_of(error)}") from error
    if not isinstance(body, dict) or body.pop("checksum", "") != json_digest(body):
        raise DamagedError("the manifest does not match its checksum")
    if body["format"] != FORMAT:
        raise CheckpointError(
            f"{path}: step {step} is of format {body['format']}, expected {FORMAT}"
        )
    if body["step"] != step:
        raise DamagedError(f"the manifest is of step {body['step']}")
    return {"files": {}, "records": {}} | body


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
