# SPDX-License-Identifier: Apache-2.0
"""Exit codes, and the errors that a user can mend: one clear message each."""

import re
from collections.abc import Callable
from typing import Any

# Done; failed; wrong input or config; stopped, and the same command resumes the run.
EXIT_OK, EXIT_FAILED, EXIT_WRONG_INPUT, EXIT_STOPPED = 0, 1, 2, 75


class ConfigError(ValueError):
    """A config or flag is wrong; the message names the key and the expectation."""


class CheckpointError(RuntimeError):
    """No intact checkpoint, or one that does not fit; the message names the path."""


class SaveError(CheckpointError):
    """A save failed; the message names step, folder, reason. Older steps are intact.

    The exit code is EXIT_FAILED, since flags and files are in order.
    """


class Stopped(Exception):
    """The run was asked to stop, and its state has been saved; run again to resume."""


def error_of(act: Callable[[], Any]) -> Exception | None:
    """What `act` raises; it is raised again once the other processes know of it."""
    try:
        act()
    except Exception as error:  # noqa: BLE001  orbax raises many kinds
        return error
    return None


def reason_of(error: Exception) -> str:
    """The error in one line; of tensorstore's long ones, their beginning and end."""
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    text = re.sub(r" \[[a-z_]+[\[=].*", "", str(error).strip().split("\n")[0])
    if len(text) > 300:
        text = f"{text[:80]} ... {text[-200:]}"
    kind = "" if isinstance(error, CheckpointError) else f"{type(error).__name__}: "
    return kind + text
