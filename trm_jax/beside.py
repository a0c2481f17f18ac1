# SPDX-License-Identifier: Apache-2.0
"""Data pipeline and configs: beside trm_jax in a checkout, inside it in a wheel."""

import importlib
import importlib.util
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trm_jax.errors import ConfigError


def pipeline(module: str) -> Any:
    """A module of the data pipeline, such as "tasks"."""
    return _beside("data_pipeline", module)


def get_config(name: str = "default") -> Any:
    """The shipped config NAME or NAME:VARIANT, a ConfigDict that may be edited.

    "default" is the config that all others edit. Raises ConfigError.
    """
    stem, _, variant = name.partition(":")
    names = sorted(p.stem for p in configs_folder().glob("[!_]*.py"))
    if stem not in names:
        raise ConfigError(f"config {stem!r}; expected one of {', '.join(names)}")
    make = _beside("configs", stem).get_config
    if variant and not inspect.signature(make).parameters:
        raise ConfigError(f"config {stem} has no variants; found {name!r}")
    try:
        return make(*[variant] if variant else [])
    except ValueError as error:  # no such variant
        raise ConfigError(f"config {name}: {error}") from error


def configs_folder() -> Path:
    """The folder of the shipped configs."""
    return Path(_beside("configs", "default").__file__).parent


def weights_folder() -> Path:
    """The folder of the shipped weights, which may be empty."""
    inside = Path(__file__).parent / "shipped_weights"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "weights"


def is_shipped(path: Path) -> bool:
    """Whether a file is in the folder of the shipped configs."""
    return path.is_file() and path.resolve().parent == configs_folder().resolve()


def _beside(package: str, module: str) -> Any:
    """A module of a package that is beside trm_jax, or inside it in a wheel."""
    inside = f"{__package__}.{package}"
    found = inside if importlib.util.find_spec(inside) else package
    return importlib.import_module(f"{found}.{module}")


def sizes_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes that config.data determines; only ARC reads a file for them."""
    return pipeline("tasks").spec_of(config["data"]).sizes
