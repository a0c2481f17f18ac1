# SPDX-License-Identifier: Apache-2.0
"""Levers: what a variant of a config changes beside its network (docs/levers.md).

`sudoku_extreme.py:mamba2_attn+eqr` is the network mamba2_attn with the lever eqr. The
order of levers does not matter: they apply in the order of LEVERS.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from . import default

# RULE is the rule of the config; inside a rule that wraps another, the innermost.
LEVERS: dict[str, dict[str, Any]] = {
    "eqr": {"rule.name": "eqr"},
    "urm": {"rule.name": "urm", "rule.urm.h_cycles": 2, "rule.urm.l_cycles": 6},
    "flow": {"rule.name": "flow"},
    # The perturbation needs more digits than bfloat16 has.
    "lipschitz": {"rule.RULE.lipschitz_weight": 1e-7, "model.dtype": "float32"},
    "all_cycles": {"rule.RULE.grad_cycles": 0, "rule.RULE.remat": "full"},
    "every_cycle": {"rule.RULE.every_cycle": True},
    "rope2d": {"model.attention.positions": "rope_2d"},
    "random_starts": {"rule.RULE.starts": "random"},
    "anchored_starts": {"rule.RULE.starts": "anchored"},
    "smoothing": {"rule.RULE.label_smoothing": 0.1},
    "gated_norm": {},  # see `gated_unit`
    "muon": {"optim.name": "muon", "optim.clip_norm": 1.0},
    "cgar": {  # see also `phases`
        "rule.RULE.phase_ends": (0.3, 0.6),
        "halting.step_decay": 0.7,
        "halting.normalise_steps": True,
    },
    "wta": {"rule.name": "wta", "rule.wta.inner": "RULE"},
}
# Levers of which a variant may name one; wta wraps any of the rules.
CHOICES = {
    "rules": ("eqr", "urm", "flow"),
    "starts": ("random_starts", "anchored_starts"),
}
NETWORKS = {"urm": "attention_conv"}  # of a lever whose variant names no network


def split(variant: str, network: str) -> tuple[str, list[str]]:
    """The network and the levers of a variant NETWORK+LEVER+...; all may be absent.

    `network` is the default. Raises ValueError for an unknown name, a lever that is
    named twice, and two levers that each choose a rule.
    """
    first, *levers = variant.split("+")
    if first in default.LAYERS:
        network = first
    else:
        levers.insert(0, first)
        network = next((NETWORKS[n] for n in levers if n in NETWORKS), network)
    if unknown := [name for name in levers if name not in LEVERS]:
        raise ValueError(
            f"unknown variant {unknown[0]!r}; expected a network first "
            f"({', '.join(default.LAYERS)}), levers ({', '.join(LEVERS)}), or both, "
            "joined by +"
        )
    if twice := [name for name in levers if levers.count(name) > 1]:
        raise ValueError(f"{variant!r} names the lever {twice[0]!r} twice")
    for kind, names in CHOICES.items():
        if len(found := [name for name in levers if name in names]) > 1:
            raise ValueError(
                f"{variant!r} chooses the {kind} {' and '.join(found)}; expected one "
                "of them"
            )
    return network, levers


def pull(
    config: ConfigDict,
    levers: list[str],
    also: Mapping[str, Mapping[str, Any]] | None = None,
) -> None:
    """Apply levers, and `also` what the published recipe of each changes beside it.

    A recipe changes nothing that another lever sets: `urm+muon` keeps URM's cycles.
    """
    chosen = [name for name in levers if name in CHOICES["rules"]]
    rule = chosen[0] if chosen else innermost(config)
    own = {
        name: {
            key.replace("RULE", rule): rule if value == "RULE" else value
            for key, value in LEVERS[name].items()
        }
        for name in sorted(levers, key=[*LEVERS].index)
    }
    for name in own:
        values = dict(own[name])
        of_others = {key for other in own if other != name for key in own[other]}
        for key, value in (also or {}).get(name, {}).items():
            if (setting := key.replace("RULE", rule)) not in of_others:
                values[setting] = value
        for key in values:
            _check_read(name, key, config)
        default.change(config, values)
    if "cgar" in levers:
        config.rule[rule].update(phases(config.rule[rule]))
    if "gated_norm" in levers:
        config.model[gated_unit(config)].inner_norm = True


def phases(rule: ConfigDict) -> dict[str, tuple[int, int]]:
    """One and two thirds of a rule's cycles: 1 x 2 and 2 x 4 of 3 x 6 (CGAR)."""
    h, l = rule.h_cycles, rule.l_cycles
    return {
        "phase_h_cycles": (-(-h // 3), -(-2 * h // 3)),
        "phase_l_cycles": (max(1, l // 3), max(1, 2 * l // 3)),
    }


def _check_read(lever: str, key: str, config: ConfigDict) -> None:
    """Raise ValueError if the network has no operator that reads `model.OPERATOR.X`."""
    section = key.removeprefix("model.").rpartition(".")[0]
    is_read = any(layer.startswith(section) for layer in config.model.layers)
    if key.startswith("model.") and section and not is_read:
        raise ValueError(f"the lever {lever} needs a network with {section}")


def gated_unit(config: ConfigDict) -> str:
    """The gated unit that mixes channels, or else tokens. Raises ValueError."""
    for name in ("swiglu", "token_mlp"):
        if name in config.model.layers:
            return name
    raise ValueError("the lever gated_norm needs a network with swiglu or token_mlp")


def norm_units(config: ConfigDict) -> None:
    """Norms inside of gated units and attention, which jvdillon/sic has with Muon."""
    norm: dict[str, int] = {"inner_norm": True}
    default.set_sizes(config, swiglu=norm, token_mlp=norm, attention=norm)


def innermost(config: ConfigDict) -> str:
    """The rule that no other wraps."""
    name: str = config.rule.name
    while "inner" in config.rule[name]:
        name = config.rule[name].inner
    return name
