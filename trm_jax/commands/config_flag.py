# SPDX-License-Identifier: Apache-2.0
"""The flag --config=FILE[:variant] and its overrides --config.a.b=VALUE.

A name without .py refers to a shipped config. Every mistake in the flags raises a
ConfigError with a message of one line.
"""

import os
import re
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from trm_jax import api
from trm_jax.beside import pipeline
from trm_jax.commands import shell
from trm_jax.errors import ConfigError
from trm_jax.settings import flatten, unknown_key

# The current names of the keys of config format 1.
MOVED = {
    **{f"model.{k}": f"rule.trm.{k}" for k in ("h_cycles", "l_cycles", "remat")},
    **{f"model.{k}": f"model.attention.{k}" for k in ("num_heads", "rope_theta")},
    "model.expansion": "model.swiglu.expansion and model.token_mlp.expansion",
    "model.swiglu_width": "model.swiglu.width",
    "model.token_mlp_width": "model.token_mlp.width",
    **{
        f"model.{k}": f"model.mamba2.{k}"
        for k in ("expand", "head_dim", "d_state", "num_groups", "d_conv", "chunk_size")
    },
    "model.ssd_implementation": "model.mamba2.implementation",
    **{f"model.{k}": f"halting.{k}" for k in ("max_supervision_steps", "explore_rate")},
    **{f"optim.{k}": f"optim.adam_atan2.{k}" for k in ("b1", "b2")},
    "train.loss": "rule.trm.cell_loss",
    **{f"data.{k}": f"data.sudoku.{k}" for k in ("box_rows", "box_cols", "clues")},
    **{f"data.{k}": f"data.maze.{k}" for k in ("min_moves", "wall_share")},
    "data.side": "data.maze.side or data.arc.side",
    **{
        f"data.{k}": f"data.arc.{k}"
        for k in ("train_subsets", "test_subset", "max_grid", "allow_leaks")
    },
}


_CONFIG = re.compile(r"--?config=(.*)")
_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]*)")
# Keys that decide which sections a run reads; a rule that wraps another has `inner`.
_CHOICES = (
    *("rule.name", ".inner", "optim.name", "model.layers", "data.task", "data.source"),
)


def define(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Define --config among `values`; `argv` determines its overrides."""
    config_flags.DEFINE_config_file(
        "config",
        None,
        "Config file, or the name of a shipped one; see configs/.",
        flag_values=values,
        sys_argv=list(argv),
    )


def read(
    values: flags.FlagValues, argv: Sequence[str], like: Mapping[str, Any]
) -> ConfigDict:
    """Parse all flags, and return the config with its overrides, locked.

    If an override chooses another rule, optimiser, task or source of puzzles, or other
    operators, then what the file had set for the last ones gives way
    (training/choices.py).
    Raises ConfigError, also if the keys of the config differ from those of `like`.
    """
    given, asked = _check_overrides(argv, like), argv
    # ml_collections would mix this file with the one that it loaded before.
    sys.modules.pop("config_config", None)
    if name := _shipped(argv):
        # Its imports are relative, but ml_collections loads a file outside its package.
        argv = [a for a in _joined(argv) if not _CONFIG.fullmatch(a)]
        delattr(values, "config")
        config_flags.DEFINE_config_dict(
            "config", api.get_config(name), flag_values=values, sys_argv=list(argv)
        )
    try:
        shell.parse_flags(values, argv)
    except ConfigError:
        raise
    except Exception as error:  # whatever the code of the config file raises
        raise ConfigError(_config_problem(error)) from error
    config = _checked(values["config"].value, like)
    if not _choose(given):
        return config
    flag = [a for a in _joined(asked) if _CONFIG.fullmatch(a)][-1]
    alone, values = ["", flag], flags.FlagValues()
    define(values, alone)
    return _settled(read(values, alone, like).to_dict(), config, given)


def split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides --config.a.b=VALUE among the arguments, and all others."""
    overrides = [a for a in argv[1:] if _OVERRIDE.match(a)]
    return overrides, [a for a in argv if a not in overrides]


def over(base: Mapping[str, Any], overrides: Sequence[str]) -> ConfigDict:
    """The config `base` with overrides --config.a.b=VALUE. Raises ConfigError."""
    argv, values = ["", *overrides], flags.FlagValues()
    given = _check_overrides(argv, base)
    config_flags.DEFINE_config_dict(
        "config", ConfigDict(base), flag_values=values, sys_argv=argv
    )
    shell.parse_flags(values, argv)
    config = _checked(values["config"].value, base)
    return _settled(base, config, given)


def _choose(given: set[str]) -> bool:
    """Whether any of the keys decides what a run reads."""
    return any(key.endswith(_CHOICES) for key in given)


def _settled(
    before: Mapping[str, Any], config: ConfigDict, given: set[str]
) -> ConfigDict:
    """The config without what it set, `before`, for a choice that is replaced."""
    from trm_jax.training.choices import implied, left_behind
    from trm_jax.training.config import check_choices

    if not _choose(given):
        return config
    check_choices(config.to_dict())
    with config.unlocked():
        changes = implied(before, config.to_dict(), given)
        config.update_from_flattened_dict(changes)
        unread = pipeline("settings").unread
        try:
            kept = given | unread(before["data"]).keys()
            now = unread(config.data.to_dict())
        except pipeline("errors").DataError as error:
            raise ConfigError(str(error)) from error
        gone = {key: value for key, value in now.items() if key not in kept}
        config.update_from_flattened_dict(gone)
    for key, value in left_behind(before, config.to_dict(), changes).items():
        # stdout may be a file of JSON.
        lacks = f"rule {config.rule.name!r} has no such setting"
        sys.stderr.write(f"{key} = {value!r} of the config is left out: {lacks}\n")
    return config


def read_optional(
    values: flags.FlagValues, argv: Sequence[str], like: Mapping[str, Any]
) -> ConfigDict | None:
    """The same for a command that may be called without --config; then None."""
    if any(re.match(r"--?(no)?config\b", argument) for argument in argv[1:]):
        return read(values, argv, like)
    shell.parse_flags(values, argv)
    return None


def _joined(argv: Sequence[str]) -> list[str]:
    """The arguments, with `--config FILE` joined into one."""
    return re.sub(r"(^|\0)(--?config)\0", r"\1\2=", "\0".join(argv)).split("\0")


def _shipped(argv: Sequence[str]) -> str | None:
    """NAME[:variant] if --config names a shipped config, by name or by its file."""
    given = [found[1] for a in _joined(argv) if (found := _CONFIG.fullmatch(a))]
    if not given:
        return None
    place, colon, variant = given[-1].partition(":")
    path = Path(place)
    if path.suffix == ".py":
        return path.stem + colon + variant if api.is_shipped(path) else None
    return None if path.is_dir() else given[-1]


def _check_overrides(argv: Sequence[str], like: Mapping[str, Any]) -> set[str]:
    """The overridden keys. Raises ConfigError for one that `like` does not have."""
    given = set()
    for argument in argv[1:]:
        found = _OVERRIDE.match(argument)
        if not found:
            continue
        key, tree, place = found[1], like, "--config"
        for name in key.split("."):
            if not isinstance(tree, Mapping):
                raise ConfigError(f"--config.{key}: unknown key; {place} is a value")
            place += f".{name}"
            if name not in tree and key in MOVED:
                raise ConfigError(f"--config.{key}: the key has moved to {MOVED[key]}")
            if name not in tree:
                raise unknown_key(place, tree)
            tree = tree[name]
        given.add(key)
    return given


def _checked(config: Any, like: Mapping[str, Any]) -> ConfigDict:
    """The config, locked, if its keys are those of `like`."""
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
    have, wanted = set(flatten(config.to_dict())), set(flatten(like))
    for key in sorted(have - wanted & MOVED.keys()):
        raise ConfigError(f"--config: its key {key} has moved to {MOVED[key]}")
    for problem, keys in (("has no", wanted - have), ("has unknown", have - wanted)):
        if keys:
            more = f" and {len(keys) - 3} more" * (len(keys) > 3)
            names = ", ".join(sorted(keys)[:3])
            raise ConfigError(
                f"--config: it {problem} {names}{more}; expected: configs/default.py"
            )
    return lock()


def _config_problem(error: Exception) -> str:
    """The message of the error, with its place in the config file."""
    if isinstance(error, SyntaxError):
        return f"--config: {error.filename} line {error.lineno}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    others = ("<", os.path.dirname(os.__file__), __file__, shell.__file__)
    own = [
        f"{frame.filename} line {frame.lineno}: "
        for frame in frames
        if not frame.filename.startswith(others)
        and "site-packages" not in frame.filename
    ]
    text = _one_line(error)
    return f"--config: {''.join(own[-1:])}{type(error).__name__}: {text}"


def _one_line(error: Exception) -> str:
    """The message of an error in one line, without the quotation marks of KeyError."""
    quoted = re.fullmatch(r"(['\"])(.*)\1", str(error), re.DOTALL)
    text = quoted[2] if quoted else str(error)
    return " ".join(text.replace("\\n", " ").replace("\\'", "'").split())
