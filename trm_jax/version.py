# SPDX-License-Identifier: Apache-2.0
"""The version of the code: commit, digest of the sources, package versions."""

import hashlib
import subprocess
from importlib import metadata
from pathlib import Path

_PACKAGES = ("trm-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_ROOT = Path(__file__).resolve().parents[1]


def sources_digest(root: Path = _ROOT) -> str:
    """A SHA-256 over the Python files of the package and of the data pipeline.

    Unlike the commit, it also shows changes that were not committed.
    """
    digest = hashlib.sha256()
    for folder in ("trm_jax", "data_pipeline"):
        for path in sorted((root / folder).rglob("*.py")):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{path.relative_to(root)} {content}\n".encode())
    return digest.hexdigest()


def versions() -> dict[str, str | None]:
    """The versions of this package and of the packages that affect its results."""
    return {name: _version(name) for name in _PACKAGES}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def git_commit(root: Path = _ROOT) -> str | None:
    """The commit of the checkout at `root`; None without one, or without git."""
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip() if (root / ".git").exists() else None
