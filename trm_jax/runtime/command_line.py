# SPDX-License-Identifier: Apache-2.0
"""Flags and the config file; whatever is wrong with them is told in one line."""

import os
import re
import sys
import traceback
from typing import Any

from absl import flags

from trm_jax.errors import ConfigError
from trm_jax.runtime.nested import flatten


def parse_flags() -> None:
    """Read the flags and the config file. Raises ConfigError."""
    try:
        extra = flags.FLAGS(sys.argv)[1:]
    except flags.Error as error:
        raise ConfigError(_last_line(error)) from error
    except Exception as error:  # of the config file, or an unknown --config.key
        raise ConfigError(_config_problem(error)) from error
    if extra:
        raise ConfigError(
            f"unexpected argument {extra[0]!r}; flags look like --name=value"
        )


def resolved_config(holder: Any, like: Any) -> Any:
    """The config of `--config=FILE[:variant]` with its overrides, locked.

    Raises ConfigError, also where its keys are not those of `like`.
    """
    config = holder.value
    if config is None:
        raise ConfigError("--config=FILE is missing, for instance configs/smoke.py")
    try:
        lock = getattr(config, "lock", None)
    except OSError as error:  # ml_collections reports a missing file on first use
        reason = _one_line(error).partition("[Errno")
        raise ConfigError(f"--config: {''.join(reason[1:]) or reason[0]}") from error
    if lock is None:
        kind = type(config).__name__
        raise ConfigError(f"--config: get_config() returned {kind}, not ConfigDict")
    have, wanted = (set(flatten(c.to_dict())) for c in (config, like))
    for problem, keys in (("has no", wanted - have), ("has unknown", have - wanted)):
        if keys:
            more = f" and {len(keys) - 3} more" * (len(keys) > 3)
            names = ", ".join(sorted(keys)[:3])
            raise ConfigError(
                f"--config: it {problem} {names}{more}; expected: configs/default.py"
            )
    return lock()


def _last_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0] if len(lines) < 2 else f"{lines[0]} {lines[-1]}"


def _config_problem(error: Exception) -> str:
    """The message with the flag that was meant, or the place in the config file."""
    text = _one_line(error)
    named = {*re.findall(r"\w+", text)[:1]}
    for flag in (a.split("=")[0] for a in sys.argv if a.startswith("--config.")):
        if isinstance(error, AttributeError | KeyError) and named & {*flag.split(".")}:
            return f"{flag}: unknown key {text}"
    if isinstance(error, SyntaxError):
        return f"--config: {error.filename} line {error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    others = ("<", os.path.dirname(os.__file__), __file__)
    own = [
        f"{frame.filename} line {frame.lineno}: "
        for frame in frames
        if not frame.filename.startswith(others)
        and "site-packages" not in frame.filename
    ]
    return f"--config: {''.join(own[-1:])}{type(error).__name__}: {text}"


def _one_line(error: Exception) -> str:
    """Its message; that of a KeyError, and what is made of it, is a quotation."""
    quoted = re.fullmatch(r"(['\"])(.*)\1", str(error), re.DOTALL)
    text = quoted[2] if quoted else str(error)
    return " ".join(text.replace("\\n", " ").replace("\\'", "'").split())
