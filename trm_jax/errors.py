# SPDX-License-Identifier: Apache-2.0
"""Exit codes, and the errors that a user can mend: one clear message each."""

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
