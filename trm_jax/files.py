# SPDX-License-Identifier: Apache-2.0
"""Files that are never half written, and digests of files and records."""

import contextlib
import hashlib
import json
import os
import tempfile
import uuid
from pathlib import Path
from typing import Any


def read_bytes(path: Path, error: type[Exception]) -> bytes:
    """The content of a file, empty if there is none; raises `error` if unreadable."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as trouble:
        raise error(f"{path} cannot be read: {trouble.strerror}") from trouble


def check_target(path: Path, error: type[Exception]) -> None:
    """Raise `error` unless a file can be written there; make its folder if missing."""
    if path.is_dir():
        raise error(f"{path} is a folder; expected a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as trouble:
        raise error(f"{path} cannot be written: {trouble.strerror}") from trouble


def write_whole(path: Path, content: str | bytes, error: type[Exception]) -> None:
    """Replace the file atomically, once all of `content` is on the disk.

    If this fails, it raises `error`, naming file and reason, and keeps the old file.
    """
    draft = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")  # others write, too
    data = content.encode() if isinstance(content, str) else content
    try:
        with draft.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        sync(path.parent)
    except OSError as trouble:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise error(f"{path} cannot be written: {trouble.strerror}") from trouble


def file_digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_digest(value: Any) -> str:
    """The SHA-256 of a value as JSON; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sync(path: Path) -> None:
    """Flush a file to the disk, or the names in a folder if the system supports it."""
    refusable = (
        contextlib.suppress(OSError) if path.is_dir() else contextlib.nullcontext()
    )
    with refusable:
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
