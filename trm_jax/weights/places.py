# SPDX-License-Identifier: Apache-2.0
"""Where weights are: a path, the name of shipped weights, or a repository of the hub.

A hub id is `owner/repo`, or `owner/repo/FILE` if the repository has several weights.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from trm_jax.beside import weights_folder
from trm_jax.errors import CheckpointError, ConfigError
from trm_jax.weights.exchange import MODEL
from trm_jax.weights.published import SETTINGS
from trm_jax.weights.tensors import one_line

_TORCH = re.compile(r"(.*/)?(step_[^/.]*|checkpoint|[^/]+\.(pt|pth|ckpt))")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(/[\w.-]+)*")


def find(name: str | os.PathLike[str]) -> Path:
    """The local file or folder of a path, of shipped weights, or of a hub id.

    What is on disk takes precedence. A Path is never looked up elsewhere. Files of the
    hub are downloaded. Raises ConfigError and CheckpointError.
    """
    path = Path(name)
    if path.exists() or not isinstance(name, str):
        return path
    if "/" not in name and os.sep not in name:
        return shipped(name)
    first = Path(name.partition("/")[0] or "/")
    if _HUB_ID.fullmatch(name) and first.name not in (".", "..") and not first.exists():
        return from_hub(name)
    return path


def shipped(name: str) -> Path:
    """The folder of shipped weights. Raises ConfigError with the names that exist."""
    folder = weights_folder()
    names = sorted(p.parent.name for p in folder.glob(f"*/{MODEL}"))
    if name not in names:
        raise ConfigError(
            f"{name}: no such file or folder, and no weights of this name are shipped "
            f"(shipped: {', '.join(names) or 'none'})"
        )
    return folder / name


def from_hub(name: str) -> Path:
    """Download the weights of a hub id, with the settings beside them; their path.

    Raises CheckpointError.
    """
    owner, repository, *inner = name.split("/")
    place = f"{owner}/{repository}"
    try:
        import huggingface_hub as hub
    except ImportError as error:
        raise CheckpointError(
            f"{name}: no such file or folder; for weights of the hub the package "
            "huggingface_hub is needed (pip install 'trm-jax[data]')"
        ) from error
    try:
        # Without a network this fails at once; other calls would try for half a minute.
        files = [file.rfilename for file in hub.model_info(place).siblings or ()]
        chosen = only_weights(files, "/".join(inner), name)
        beside = Path(chosen)
        settings = {str(beside.with_name(SETTINGS)), str(beside.with_suffix(".yaml"))}
        for file in settings.intersection(files):
            hub.hf_hub_download(place, file)
        return Path(hub.hf_hub_download(place, chosen))
    except CheckpointError:
        raise
    except Exception as error:  # noqa: BLE001  the hub client raises many kinds
        raise CheckpointError(
            f"{name}: no such file or folder here, and the hub does not give it "
            f"({type(error).__name__}: {one_line(error)})"
        ) from error


def only_weights(files: Iterable[str], inner: str, where: str) -> str:
    """The only file with weights in the folder `inner`, or `inner` if it is a file.

    Raises CheckpointError with the candidates.
    """
    under = [f for f in files if not inner or f == inner or f.startswith(f"{inner}/")]
    if inner and under == [inner]:
        return inner
    found = sorted(f for f in under if f.rpartition("/")[2] == MODEL)
    found = found or sorted(f for f in under if _TORCH.fullmatch(f))
    if len(found) == 1:
        return found[0]
    names = ", ".join(found[:10]) or "none"
    raise CheckpointError(f"{where}: expected one file with weights; found: {names}")
