# SPDX-License-Identifier: Apache-2.0
"""Exit codes, and the errors that a user can fix, each with one clear message."""

import re
from collections.abc import Callable
from typing import Any

# Done; failed; wrong input or config; stopped, and the same command resumes the run.
EXIT_OK, EXIT_FAILED, EXIT_WRONG_INPUT, EXIT_STOPPED = 0, 1, 2, 75


class ConfigError(ValueError):
    """A config or flag is wrong; the message names the key and what is expected."""


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged or does not fit; the message names the path."""


class SaveError(CheckpointError):
    """A save failed; the message names step, folder, reason. Older steps are intact.

    The exit code is EXIT_FAILED, since flags and files are in order.
    """


class Stopped(Exception):
    """The run was asked to stop, and its state has been saved; run again to resume."""


def error_of(act: Callable[[], Any]) -> Exception | None:
    """The error of `act`, or None; it is raised again when all processes know of it."""
    try:
        act()
    except Exception as error:  # noqa: BLE001  orbax raises many kinds
        return error
    return None


def reason_of(error: Exception) -> str:
    """The error in one line; a long text of tensorstore keeps its beginning and end."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = re.sub(r" \[[a-z_]+[\[=].*", "", str(error).strip().split("\n")[0])
    if len(text) > 300:
        text = f"{text[:80]} ... {text[-200:]}"
    kind = "" if isinstance(error, CheckpointError) else f"{type(error).__name__}: "
    return kind + text
