# SPDX-License-Identifier: Apache-2.0
"""Errors that the user can mend: one clear message each, exit code 2."""


class ConfigError(ValueError):
    """A config or flag is wrong; the message names the key and the expectation."""


class CheckpointError(RuntimeError):
    """No intact checkpoint, or one that does not fit; the message names the path."""


class SaveError(CheckpointError):
    """A save failed; the message names step, folder, reason. Older steps are intact.

    Exit code 1: the flags and files are in order.
    """
