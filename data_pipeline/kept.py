# SPDX-License-Identifier: Apache-2.0
"""Chosen puzzles that are kept on disk, so that no start reads a large file again.

They are kept in a file whose name is the SHA-256 of all that decides them: the content
of the files that were read, the settings, and the versions of the code. Its first line
is the SHA-256 of the rest: a line of JSON, and the arrays in the format of NumPy.
"""

import contextlib
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from .spec import PuzzleSet

VERSION = 1  # of the choice, the warnings and this format: increase it with any of them
WORTHWHILE = 2**24  # bytes of the files that are read; smaller ones take a second
MOST_BYTES = 2**31  # of the folder; beyond, what was not used for longest is removed

_SETS = ("train", "test")
_ARRAYS = ("inputs", "labels", "puzzle_starts", "group_starts", "puzzle_ids")


class Choice(NamedTuple):
    """Chosen puzzles, and warnings about all puzzles of their source.

    The warnings write {train} and {test} for the paths of the two files.
    """

    train: PuzzleSet
    test: PuzzleSet
    warnings: list[str]


def kept(files: Sequence[str], settings: Any, choose: Callable[[], Choice]) -> Choice:
    """The result of `choose`, from the disk if it was kept; it is if files are large.

    `settings` is a JSON value with all that decides the choice besides the content of
    the files. A warning says if what was kept is damaged, or if nothing can be kept.
    """
    if not _are_large(files):
        return choose()
    digests = [_file_digest(file) for file in files]
    key = json.dumps([VERSION, settings, digests], sort_keys=True).encode()
    path = _folder() / f"{hashlib.sha256(key).hexdigest()}.puzzles"
    doubts = []
    try:
        return _read(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        doubts = [f"{path}: kept puzzles cannot be used: {reason}; choosing them anew"]
    choice = choose()
    # If a file has changed since its digest was taken, the name would be wrong.
    if [_file_digest(file) for file in files] == digests:
        try:
            _write(path, choice)
        except OSError as error:
            reason = f"{error.strerror}; the next start reads {files[0]} again"
            doubts.append(f"{path}: puzzles cannot be kept: {reason}")
        else:
            _remove_oldest(path)
    return choice._replace(warnings=[*doubts, *choice.warnings])


def _folder() -> Path:
    """The folder `puzzles`, in the one where JAX keeps compiled programs."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(cache) / "trm_jax" / "puzzles"


def _are_large(files: Sequence[str]) -> bool:
    """Whether reading takes long. A file that is missing is not large."""
    regular = [Path(file) for file in files if os.path.isfile(file)]
    return sum(file.stat().st_size for file in regular) >= WORTHWHILE


def _file_digest(path: str) -> str:
    """The SHA-256 of a file; empty if it cannot be read, which `choose` reports."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _write(path: Path, choice: Choice) -> None:
    """Write elsewhere and rename: other processes may read and write this file."""
    if not path.is_absolute():
        raise OSError(errno.ENOENT, "there is no home folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
    attributes = [list(getattr(choice, name).attributes) for name in _SETS]
    try:
        with draft.open("w+b") as file:
            file.write(b"%64d\n" % 0)
            file.write(json.dumps([choice.warnings, *attributes]).encode() + b"\n")
            for puzzles in (choice.train, choice.test):
                columns = [getattr(puzzles, name) for name in _ARRAYS]
                for column in (*columns, *puzzles.attributes.values()):
                    np.save(file, column, allow_pickle=False)
            file.seek(65)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            file.seek(0)
            file.write(digest.encode())
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _read(path: Path) -> Choice:
    """What `_write` wrote. Raises OSError or ValueError."""
    with path.open("rb") as file:
        expected = file.readline()[:64].decode(errors="replace")
        start = file.tell()
        if hashlib.file_digest(file, "sha256").hexdigest() != expected:
            raise ValueError("the file is damaged (SHA-256)")
        file.seek(start)
        warnings, *attributes = json.loads(file.readline())
        train, test = (_read_set(file, names) for names in attributes)
    with contextlib.suppress(OSError):  # others' files may be used, too
        os.utime(path)
    return Choice(train, test, warnings)


def _read_set(file: BinaryIO, attributes: list[str]) -> PuzzleSet:
    columns = {
        name: np.load(file, allow_pickle=False) for name in (*_ARRAYS, *attributes)
    }
    own = {name: columns.pop(name) for name in _ARRAYS}
    return PuzzleSet(**own, attributes=columns)


def _remove_oldest(path: Path) -> None:
    """Remove files that were not used for longest, until the folder is small enough."""
    with contextlib.suppress(OSError):  # another process may do the same
        files = {file: file.stat() for file in path.parent.iterdir()}
        total = sum(about.st_size for about in files.values())
        for file in sorted(files.keys() - {path}, key=lambda f: files[f].st_mtime):
            if total > MOST_BYTES:
                file.unlink()
                total -= files[file].st_size
