# SPDX-License-Identifier: Apache-2.0
"""Sections of a config: frozen dataclasses whose fields state their meaning and range.

Every operator, rule, optimiser and task declares the settings that it reads. `knob`
makes a field; only its metadata is used, so a section can be declared without this
module. `read` checks the values, except in config.data: the data pipeline checks them.
"""

import dataclasses
import difflib
import math
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from trm_jax.errors import ConfigError

T = TypeVar("T")
_KINDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a finite number",
    str: "a text",
}


def knob(
    default: Any,
    doc: str,
    *,
    low: int | float | None = None,
    high: int | float | None = None,
    below: int | float | None = None,
    choices: tuple[str, ...] | None = None,
) -> Any:
    """A dataclass field with its default, meaning and range.

    `low` and `high` are part of the range, `below` is not. Every element of a tuple
    must lie in the range.
    """
    metadata: dict[str, Any] = {"doc": doc, "low": low, "high": high}
    metadata |= {"below": below, "choices": choices}
    known = {name: value for name, value in metadata.items() if value is not None}
    return dataclasses.field(default=default, metadata=known)


def defaults(section: type) -> dict[str, Any]:
    """The default of every field of a section."""
    return {field.name: field.default for field in dataclasses.fields(section)}


def own_values(section: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a section, without its subsections."""
    return {k: v for k, v in section.items() if not isinstance(v, Mapping)}


def read(section: type[T], values: Mapping[str, Any], where: str) -> T:
    """The section with these values; `where` is its place in the config.

    Lists become tuples, and whole numbers become floats in a `float` field.

    Raises:
      ConfigError: a key is unknown or absent, or a value is None, of another type, not
        finite, or out of range; the message names key, value and range.
    """
    fields: dict[str, Any] = {f.name: f for f in dataclasses.fields(section)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise unknown_key(_key(where, name), fields)
    for name in fields:
        if name not in values:
            raise ConfigError(
                f"{_key(where, name)} is absent; expected {describe(fields[name])}"
            )
    hints = get_type_hints(section)
    checked = {
        name: _checked(values[name], hints[name], field, _key(where, name))
        for name, field in fields.items()
    }
    return section(**checked)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings -> {"a.b.c": value}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def unknown_key(key: str, expected: Mapping[str, Any] | list[str]) -> ConfigError:
    """The error for an unknown key; it suggests the nearest key that exists."""
    section, _, name = key.rpartition(".")
    near = difflib.get_close_matches(name, list(expected), n=1)
    hint = f"did you mean {_key(section, near[0])}?" if near else ""
    names = ", ".join(expected)
    return ConfigError(f"{key}: unknown key; {hint or f'expected one of {names}'}")


def _key(section: str, name: str) -> str:
    return f"{section}.{name}" if section else name


def choose(registry: Mapping[str, T], name: Any, key: str) -> T:
    """The member of a registry that `key` of the config names. Raises ConfigError."""
    if name not in registry:
        names = ", ".join(registry)
        raise ConfigError(f"{key} = {name!r}; expected one of {names}")
    return registry[name]


def describe(field: Any) -> str:
    """The range of a field, in words: "a whole number >= 1"."""
    hint, meta = field.type, field.metadata
    if "choices" in meta:
        return f"one of {', '.join(meta['choices'])}"
    if get_origin(hint) is tuple:
        inner, count = get_args(hint)[0], len(get_args(hint))
        many = "a tuple" if get_args(hint)[-1] is Ellipsis else f"a tuple of {count}"
        return f"{many}, each {_KINDS[inner]}{_bounds(meta)}"
    return f"{_KINDS[hint]}{_bounds(meta)}"


def _bounds(meta: Mapping[str, Any]) -> str:
    signs = {"low": ">=", "high": "<=", "below": "<"}
    parts = [f"{sign} {meta[name]}" for name, sign in signs.items() if name in meta]
    return f" {' and '.join(parts)}" if parts else ""


def _checked(value: Any, hint: Any, field: Any, key: str) -> Any:
    try:
        return _as_declared(value, hint, field.metadata)
    except ValueError:
        text = f"{key} = {value!r}; expected {describe(field)}"
        raise ConfigError(text) from None


def _as_declared(value: Any, hint: Any, meta: Mapping[str, Any]) -> Any:
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        if not isinstance(value, tuple | list):
            raise ValueError
        if kinds[-1] is not Ellipsis and len(value) != len(kinds):
            raise ValueError
        return tuple(_element(v, kinds[0], meta) for v in value)
    value = _element(value, hint, meta)
    if value not in meta.get("choices", (value,)):
        raise ValueError
    return value


def _element(value: Any, kind: Any, meta: Mapping[str, Any]) -> Any:
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ValueError
    if kind in (int, float):
        low, high = meta.get("low", -math.inf), meta.get("high", math.inf)
        inside = math.isfinite(value) and low <= value <= high
        if not inside or not value < meta.get("below", math.inf):
            raise ValueError
    return value
