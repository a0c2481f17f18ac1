# SPDX-License-Identifier: Apache-2.0
"""Errors that the user can mend: one clear message each, exit code 2."""


class ConfigError(ValueError):
    """A config or flag is wrong; the message names the key and the expectation."""


class CheckpointError(RuntimeError):
    """No intact checkpoint, or one that does not fit; the message names the path."""
