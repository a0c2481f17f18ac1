# SPDX-License-Identifier: Apache-2.0
"""What another choice of rule, operators or optimiser changes beside it.

A config file edits the sections that its own choice reads. If a user then chooses, say,
another rule, nobody asked for the old section's values: they get their defaults again,
and the new rule takes those that it has, such as the number of cycles. A value that the
user gave stays, and is refused if nothing reads it.
"""

from collections.abc import Collection, Mapping
from typing import Any

from trm_jax.training.config import default_config, sections_in_use


def implied(
    before: Mapping[str, Any], after: Mapping[str, Any], given: Collection[str] = ()
) -> dict[str, Any]:
    """The further changes, as {key: value}, if `before` became `after`.

    `given` are the keys that the user set. Raises ConfigError for an unknown name.
    """
    known = default_config()
    if around := _around(before, after, given):
        place, name = around
        wrapped = {**after["rule"], place: {**after["rule"][place], "inner": name}}
        more = implied(
            before, {**after, "rule": wrapped}, {*given, f"rule.{place}.inner"}
        )
        return {f"rule.{place}.inner": name} | more
    was, now = sections_in_use(before), sections_in_use(after)
    changes: dict[str, Any] = {}
    for section, names in was.items():
        for old in names - now[section]:
            for key, default in known[section][old].items():
                value, place = before[section][old][key], f"{section}.{old}.{key}"
                if value != default and place not in given:
                    changes[place] = default
                    if section == "rule":  # two operators share no meaning of a key
                        changes |= _taken_over(key, value, before, now["rule"] - names)
    return {key: value for key, value in changes.items() if key not in given}


def _around(
    before: Mapping[str, Any], after: Mapping[str, Any], given: Collection[str]
) -> tuple[str, str] | None:
    """A rule that is put around the last one, and the last one, if nobody named it."""
    old, new = before["rule"]["name"], after["rule"]["name"]
    is_given = f"rule.{new}.inner" in given
    if old == new or is_given or "inner" not in after["rule"].get(new, {}):
        return None
    return (new, old) if "inner" not in before["rule"].get(old, {}) else None


def left_behind(
    before: Mapping[str, Any], after: Mapping[str, Any], changes: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings of the last rule, as {key: value}, that the new one does not have.

    `changes` are those that `implied` gives.
    """
    new = [after["rule"][name] for name in sections_in_use(after)["rule"]]
    found = {}
    for place in changes:
        section, name, key = place.split(".")
        value = before[section][name][key]
        has_it = any(key in settings for settings in new)
        if section == "rule" and value != changes[place] and not has_it:
            found[place] = value
    return found


def _taken_over(
    key: str, value: Any, before: Mapping[str, Any], rules: Collection[str]
) -> dict[str, Any]:
    """The value for those rules that have the setting and no value of their own."""
    known = default_config()["rule"]
    return {
        f"rule.{name}.{key}": value
        for name in rules
        if key in known[name] and before["rule"][name][key] == known[name][key]
    }
