# SPDX-License-Identifier: Apache-2.0
"""Configs as nested mappings: flat keys, and what differs."""

import json
from collections.abc import Mapping
from typing import Any


def diff(
    old: Mapping[str, Any], new: Mapping[str, Any], may_change: tuple[str, ...] = ()
) -> list[str]:
    """Lines `key: old -> new` for every difference that may not be."""
    old, new = flatten(old), flatten(json.loads(json.dumps(new)))
    return [
        f"{key}: {old.get(key, '(absent)')} -> {new.get(key, '(absent)')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not _is_in(key, may_change)
    ]


def _is_in(key: str, names: tuple[str, ...]) -> bool:
    """Whether the key is one of the names, or in a section whose name ends in a dot."""
    return any(key == n or (n.endswith(".") and key.startswith(n)) for n in names)


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings -> {"a.b.c": value}."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
