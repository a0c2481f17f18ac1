# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the TrainState through orbax, with a digest per leaf.

Orbax restores a flipped bit without complaint and takes a folder with missing files for
the newest step. So each step carries a manifest, every restore is checked against it,
and a damaged step is set aside (renamed, never deleted) for the one before it.
"""

import hashlib
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import lax
from jaxtyping import Array, UInt32

from trm_jax.errors import CheckpointError
from trm_jax.sharding import path_string
from trm_jax.types import TrainState

log = logging.getLogger(__name__)

FORMAT = 1


class _DamagedError(Exception):
    """This step cannot be used; the message says why."""


class Checkpoints:
    """The checkpoints of one workdir: `workdir/checkpoints/<step>/`."""

    def __init__(self, workdir: str | Path, *, keep: int | None = None) -> None:
        """Open for training, keeping `keep` steps; or for reading alone (None)."""
        self.folder = Path(workdir).absolute() / "checkpoints"
        if keep is None and not self.folder.is_dir():
            raise CheckpointError(f"{self.folder}: not found; nothing was saved yet")
        if keep is not None:  # what a kill in the middle of a save left behind
            for folder in self.folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(folder)
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, create=keep is not None
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def save(self, state: TrainState) -> None:
        """Start saving the state under its step; does nothing if that step exists."""
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        parts = ocp.args.Composite(
            state=ocp.args.StandardSave(state),
            manifest=ocp.args.JsonSave(make_manifest(state)),
        )
        self._manager.save(step, args=parts)

    def wait(self) -> None:
        """Return when every save has been committed; raise if one failed."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for saves, then release the folder."""
        self._manager.close()

    def restore_newest(self, like: TrainState) -> TrainState | None:
        """The newest intact state, or None where nothing was ever saved.

        `like` gives shapes, dtypes and shardings. Damaged steps are renamed to
        `damaged-<step>` with a warning.

        Raises:
          CheckpointError: steps exist but none is intact, or they are of another shape.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        reasons = []
        for step in steps:
            try:
                state = self._restore(step, like)
            except _DamagedError as error:
                aside = self._set_aside(step)
                reasons.append(f"step {step}: {error} (set aside as {aside})")
                log.warning("DAMAGED CHECKPOINT, %s", reasons[-1])
            else:
                if reasons:
                    log.warning("using the checkpoint of step %d instead", step)
                return state
        if reasons or self._aside():
            raise CheckpointError(
                f"{self.folder}: no intact checkpoint is left; "
                + ("; ".join(reasons) or f"set aside earlier: {self._aside()}")
                + ". Restore one of them from a backup, or start in a new workdir."
            )
        return None

    def restore_step(self, like: TrainState, step: int | None) -> TrainState:
        """The state of one step (None: the newest); changes no file.

        Raises CheckpointError where it is missing or damaged.
        """
        steps = sorted(self._manager.all_steps())
        if not steps or (step is not None and step not in steps):
            wanted = "any step" if step is None else f"step {step}"
            found = ", ".join(map(str, steps)) or "none"
            raise CheckpointError(
                f"{self.folder}: no checkpoint of {wanted}; found: {found}"
            )
        step = steps[-1] if step is None else step
        try:
            return self._restore(step, like)
        except _DamagedError as error:
            raise CheckpointError(f"{self.folder / str(step)}: {error}") from error

    def _restore(self, step: int, like: TrainState) -> TrainState:
        manifest = self._restore_item(step, "manifest", ocp.args.JsonRestore())
        expected = _checked_leaves(manifest, step)
        _check_fits(self.folder / str(step), expected, like)
        state = self._restore_item(step, "state", ocp.args.StandardRestore(like))
        found = leaf_digests(state)
        wrong = [p for p, leaf in expected.items() if found[p] != leaf["digest"]]
        if wrong:
            raise _DamagedError(
                f"{len(wrong)} of {len(found)} arrays do not match their digest, "
                f"first {wrong[0]}"
            )
        return state

    def _restore_item(self, step: int, name: str, args: Any) -> Any:
        try:
            parts = self._manager.restore(step, args=ocp.args.Composite(**{name: args}))
        except (MemoryError, PermissionError, jax.errors.JaxRuntimeError):
            raise  # trouble of this machine, not of the files
        except Exception as error:  # noqa: BLE001  orbax raises many kinds on damage
            reason = str(error).strip().split("\n")[0][:200]
            raise _DamagedError(
                f"{name} cannot be read: {type(error).__name__}: {reason}"
            ) from error
        return parts[name]

    def _set_aside(self, step: int) -> str:
        target, copy = self.folder / f"damaged-{step}", 1
        while target.exists():
            copy += 1
            target = self.folder / f"damaged-{step}-{copy}"
        (self.folder / str(step)).rename(target)
        self._manager.reload()
        return target.name

    def _aside(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("damaged-*"))


def make_manifest(state: TrainState) -> dict[str, Any]:
    """Step, and path -> shape, dtype, digest of every leaf, under a checksum."""
    digests = leaf_digests(state)
    body = {
        "format": FORMAT,
        "step": int(state.step),
        "leaves": {
            path: leaf | {"digest": digests[path]}
            for path, leaf in _describe(state).items()
        },
    }
    return body | {"checksum": _checksum(body)}


def leaf_digests(tree: Any) -> dict[str, str]:
    """Path -> 16 hex digits that depend on every bit and its position.

    Computed on the devices that hold the arrays, in integer arithmetic: the same for
    every sharding, and a change of a single word is always seen.
    """
    paths = list(_describe(tree))
    sums = np.asarray(_digest_words(jax.tree.leaves(tree)))
    return {path: f"{a:08x}{b:08x}" for path, (a, b) in zip(paths, sums, strict=True)}


def state_digest(tree: Any) -> str:
    """One SHA-256 over all leaf digests: equal trees, equal digest."""
    text = json.dumps([_describe(tree), leaf_digests(tree)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


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


def _checked_leaves(manifest: dict[str, Any], step: int) -> dict[str, Any]:
    body = {k: v for k, v in manifest.items() if k != "checksum"}
    if manifest.get("format") != FORMAT and manifest.get("checksum") == _checksum(body):
        raise CheckpointError(
            f"step {step} is of format {manifest.get('format')}, expected {FORMAT}"
        )
    if manifest.get("checksum") != _checksum(body):
        raise _DamagedError("the manifest does not match its checksum")
    if body["step"] != step:
        raise _DamagedError(f"the manifest is of step {body['step']}")
    return body["leaves"]


def _check_fits(folder: Path, found: dict[str, Any], like: TrainState) -> None:
    """An intact checkpoint of another model is an error, not damage."""
    wanted = _describe(like)
    for path in sorted(found.keys() | wanted.keys()):
        have = {k: v for k, v in found.get(path, {}).items() if k != "digest"}
        if have != wanted.get(path, {}):
            raise CheckpointError(
                f"{folder}: {path} is {have or 'absent'} in the checkpoint, "
                f"expected {wanted.get(path) or 'absent'}"
            )
