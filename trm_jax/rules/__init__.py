# SPDX-License-Identifier: Apache-2.0
"""The recursion rules, one file each. Read `recursion.py`, then `trm.py`.

A new rule is one file here, and one entry in `RULES`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from trm_jax.errors import ConfigError
from trm_jax.rules.base import Rule
from trm_jax.rules.eqr import EqR
from trm_jax.rules.flow import Flow
from trm_jax.rules.hrm import HRM
from trm_jax.rules.loop import Loop
from trm_jax.rules.one_latent import OneLatent
from trm_jax.rules.trm import TRM
from trm_jax.rules.urm import URM
from trm_jax.rules.wta import WTA
from trm_jax.settings import choose, knob, own_values, read

RULES: dict[str, type[Any]] = {
    "trm": TRM,
    "one_latent": OneLatent,
    "hrm": HRM,
    "eqr": EqR,
    "urm": URM,
    "loop": Loop,
    "flow": Flow,
    "wta": WTA,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RuleSettings:
    """config.rule, without the sections of the rules."""

    name: str = knob("trm", "The rule: the name of a section below.")


def parts(protocol: type) -> list[str]:
    """The attributes and methods that a protocol asks for."""
    methods = [name for name in vars(protocol) if not name.startswith("_")]
    return [*protocol.__annotations__, *methods]


def make_rule(section: Mapping[str, Any]) -> Rule:
    """The rule that config.rule names, with its own section. Raises ConfigError."""
    name = read(RuleSettings, own_values(section), "rule").name
    rule = read(choose(RULES, name, "rule.name"), section[name], f"rule.{name}")
    if not isinstance(rule, WTA):
        missing = [part for part in parts(Rule) if not hasattr(type(rule), part)]
        if missing:
            raise ConfigError(
                f"rule.name = {name!r}: {type(rule).__name__} lacks "
                f"{', '.join(missing)}; see trm_jax/rules/base.py"
            )
        return rule
    if rule.inner == name:
        raise ConfigError(f"rule.wta.inner = {name!r}; expected another rule")
    choose(RULES, rule.inner, "rule.wta.inner")
    return cast(Rule, rule.around(make_rule({**section, "name": rule.inner})))
