# SPDX-License-Identifier: Apache-2.0
"""The version of the code: the commit of the checkout, the package versions."""

import subprocess
from importlib import metadata
from pathlib import Path

_PACKAGES = ("trm-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_ROOT = Path(__file__).resolve().parents[1]


def code_version() -> str:
    """The commit of the checkout, or else the installed version."""
    return git_commit() or str(versions()["trm-jax"])


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
