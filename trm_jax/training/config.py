# SPDX-License-Identifier: Apache-2.0
"""The sections of a config that belong to the run as a whole, and their check."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

from trm_jax.beside import pipeline
from trm_jax.errors import ConfigError
from trm_jax.model.config import ModelSettings
from trm_jax.model.sublayers import SUBLAYERS, operator
from trm_jax.rules import RULES, RuleSettings
from trm_jax.rules.halting import Halting
from trm_jax.settings import (
    choose,
    defaults,
    knob,
    own_values,
    read,
    unknown_key,
)
from trm_jax.training.optim import OPTIMIZERS, OptimSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """config.train."""

    steps: int = knob(65_104, "Optimiser updates.", low=1)
    batch_size: int = knob(768, "Rows over all devices.", low=1, high=2**22)
    micro_batches: int = knob(
        1, "Parts of a batch whose gradients are added up.", low=1, high=2**22
    )
    log_every: int = knob(50, "Steps between two log lines.", low=1)
    eval_every: int = knob(
        5_000, "Steps between two evaluations; 0 = only at the end.", low=0
    )
    checkpoint_every: int = knob(1_000, "Steps between two saves.", low=1)
    keep_checkpoints: int = knob(
        3, "Number of the newest checkpoints that are kept.", low=1
    )
    on_non_finite: str = knob(
        "halt",
        "After a loss or gradient that is not finite: end the run, or skip the step.",
        choices=("halt", "skip"),
    )
    on_save_error: str = knob(
        "stop",
        "What a failed save does: stop the run, or continue and try again.",
        choices=("stop", "continue"),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Eval:
    """config.eval."""

    batch_size: int = knob(768, "Rows over all devices.", low=1, high=2**22)
    max_puzzles: int = knob(
        5_000, "Test puzzles scored during training, the first ones; 0 = all.", low=0
    )
    supervision_steps: int = knob(
        0, "Steps per puzzle; 0 = halting.max_supervision_steps.", low=0, high=100_000
    )
    votes: int = knob(
        1, "Forms of each puzzle that vote on its answer; 0 = all.", low=0, high=100_000
    )
    seed: int = knob(
        0,
        "Seed of the rules that draw random numbers in evaluation.",
        low=0,
        high=2**32 - 1,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshSettings:
    """config.mesh."""

    data: int = knob(0, "Devices that share a batch; 0 = all that fsdp leaves.", low=0)
    fsdp: int = knob(1, "Devices that also share the weights.", low=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seed:
    """The one setting outside of all sections."""

    # jax.random.key silently drops the upper bits of a larger seed.
    seed: int = knob(
        0,
        "Weights, exploration, order of the puzzles; 0 is a seed.",
        low=0,
        high=2**32 - 1,
    )


class RunSettings(NamedTuple):
    """The checked sections of a run; model, rule and optim are built elsewhere."""

    seed: int
    halting: Halting
    train: Train
    eval: Eval
    mesh: MeshSettings

    @property
    def num_eval_steps(self) -> int:
        """The number of supervision steps per puzzle in an evaluation."""
        return self.eval.supervision_steps or self.halting.max_supervision_steps


SECTIONED = {"model": ModelSettings, "rule": RuleSettings, "optim": OptimSettings}
PLAIN = {"halting": Halting, "train": Train, "eval": Eval, "mesh": MeshSettings}


def default_config() -> dict[str, Any]:
    """Every section except `data`, with the settings of the TRM paper."""
    operators = {op.section: op.Settings for op in SUBLAYERS.values()}
    model = defaults(ModelSettings) | _sections(operators)
    rule = defaults(RuleSettings) | _sections(RULES)
    optim = defaults(OptimSettings) | _sections(OPTIMIZERS)
    plain = _sections(PLAIN)
    halting = plain.pop("halting")
    first = {"model": model, "rule": rule, "halting": halting, "optim": optim}
    return defaults(Seed) | first | plain


def _sections(owners: Mapping[str, type]) -> dict[str, dict[str, Any]]:
    return {name: defaults(owner) for name, owner in owners.items()}


def read_run(config: Mapping[str, Any]) -> RunSettings:
    """Check the sections of the run, and that no setting is ignored.

    Raises ConfigError.
    """
    known = default_config()
    for section, values in config.items():
        if section != "data" and section not in known:
            raise unknown_key(section, list(known))
        if section in SECTIONED and isinstance(values, Mapping):
            for name in values:
                if name not in known[section]:
                    raise unknown_key(f"{section}.{name}", list(known[section]))
    for section, like in known.items():
        _check_is_there(section, config.get(section), like)
    check_choices(config)
    _refuse_unread(config, known)
    seed = read(Seed, {k: v for k, v in config.items() if k == "seed"}, "").seed
    plain: dict[str, Any] = {
        name: read(kind, config[name], name) for name, kind in PLAIN.items()
    }
    return RunSettings(seed=seed, **plain)


def check_choices(config: Mapping[str, Any]) -> None:
    """Check the settings of model, rule and optim that lie outside their subsections.

    Raises ConfigError.
    """
    for section, kind in SECTIONED.items():
        read(kind, own_values(config[section]), section)


def _check_is_there(place: str, values: Any, like: Any) -> None:
    """Raise ConfigError if a section or subsection is missing or is not a mapping."""
    if isinstance(like, Mapping):
        if not isinstance(values, Mapping):
            raise ConfigError(f"{place} is missing, or is not a section of the config")
        for name, inner in like.items():
            if isinstance(inner, Mapping):
                _check_is_there(f"{place}.{name}", values.get(name), inner)


def _refuse_unread(config: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raise ConfigError if a section that the run does not read has been changed."""
    for section, names in sections_in_use(config).items():
        for name, values in config[section].items():
            if not isinstance(values, Mapping) or name in names:
                continue
            for key, value in values.items():
                default = known[section][name].get(key)
                if key not in known[section][name] or _plain(value) != _plain(default):
                    raise ConfigError(
                        f"{section}.{name}.{key} = {value!r}, but nothing in this run "
                        f"reads {section}.{name}; expected the default, {default!r}"
                    )


def sections_in_use(config: Mapping[str, Any]) -> dict[str, set[str]]:
    """The subsections that a run reads, of model, rule and optim.

    Raises ConfigError if an operator, rule or optimiser is unknown.
    """
    choose(RULES, config["rule"]["name"], "rule.name")
    choose(OPTIMIZERS, config["optim"]["name"], "optim.name")
    return {
        "model": {operator(name).section for name in config["model"]["layers"]},
        "rule": _rules_in_use(config["rule"]),
        "optim": {config["optim"]["name"]},
    }


def _rules_in_use(section: Mapping[str, Any]) -> set[str]:
    """The rule of the run, and the rules that it wraps by a setting called `inner`."""
    names: set[str] = set()
    name = section["name"]
    while isinstance(name, str) and name in section and name not in names:
        names.add(name)
        name = section[name].get("inner")
    return names


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | list) else value


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of an older run or export: missing settings take their defaults.

    A setting that is added keeps by default what was computed before it existed. The
    sections that the run does not read are those of today. Raises ConfigError where a
    section is no mapping, or a choice is unknown.
    """

    def merged(given: Mapping[str, Any], default: Mapping[str, Any]) -> dict[str, Any]:
        both = {
            key: merged(given[key], value)
            for key, value in default.items()
            if isinstance(value, dict) and isinstance(given.get(key), dict)
        }
        return {**default, **given, **both}

    known = default_config()
    whole = merged(config, {**known, "data": pipeline("settings").defaults()})
    for section, like in known.items():
        _check_is_there(section, whole[section], like)
    check_choices(whole)
    for section, names in sections_in_use(whole).items():
        unread = {
            name: like
            for name, like in known[section].items()
            if isinstance(like, Mapping) and name not in names
        }
        whole[section] = {**whole[section], **unread}
    return whole
