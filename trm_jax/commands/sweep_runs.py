# SPDX-License-Identifier: Apache-2.0
"""What a sweep file declares: arms and seeds, and so the runs of the sweep."""

import importlib.util
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from absl import flags

from trm_jax import api
from trm_jax.commands import config_flag, shell
from trm_jax.errors import ConfigError

_NONE: Mapping[str, Any] = MappingProxyType({})


class Arm(NamedTuple):
    """One of the configs that a sweep compares; `paper` is the published number."""

    name: str
    config: str
    overrides: Mapping[str, Any] = _NONE
    paper: str = ""


class Sweep(NamedTuple):
    """Every arm is trained once with every seed, to which `seed_keys` are set."""

    title: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    seed_keys: tuple[str, ...] = ("seed",)


class Run(NamedTuple):
    """An arm with a seed."""

    sweep: str
    arm: Arm
    seed: int
    seed_keys: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name of its files."""
        return f"{self.arm.name}-{self.seed}"

    def flags(self) -> list[str]:
        """The flags of train.py that select its config."""
        seeds = dict.fromkeys(self.seed_keys, self.seed)
        values = {**self.arm.overrides, **seeds}.items()
        config = f"--config={self.arm.config}"
        return [config, *(f"--config.{key}={value}" for key, value in values)]

    def read_config(self) -> dict[str, Any]:
        """Its whole config. Raises ConfigError."""
        from trm_jax.training.config import read_run

        argv = ["train.py", *self.flags()]
        values = flags.FlagValues()
        try:
            config_flag.define(values, argv)
            like = api.get_config().to_dict()
            config = config_flag.read(values, argv, like=like).to_dict()
            read_run(config)
        except ConfigError as error:
            raise ConfigError(f"arm {self.arm.name!r}: {error}") from error
        return config

    def step_flops(self) -> int:
        """FLOPs of one training step."""
        from trm_jax.training.build import make_recipe
        from trm_jax.training.config import read_run
        from trm_jax.training.cost import step_flops

        config = self.read_config()
        shell.set_precision(config["model"]["dtype"])
        recipe = make_recipe(config, api.sizes_of(config), read_run(config))
        return step_flops(recipe, config["train"]["batch_size"])

    def identity(self) -> dict[str, Any]:
        """The fields of its result that say what is trained, as JSON holds them."""
        fields = {
            "sweep": self.sweep,
            "arm": self.arm.name,
            "config": self.arm.config,
            "overrides": dict(self.arm.overrides),
            "seed": self.seed,
            "seed_keys": self.seed_keys,
        }
        return json.loads(json.dumps(fields))


def load(path: Path) -> Sweep:
    """What `get_sweep()` of a file returns. Raises ConfigError."""
    spec = importlib.util.spec_from_file_location("sweep_file", path)
    if not path.is_file() or not spec or not spec.loader:
        raise ConfigError(f"{path}: not a Python file; see configs/sweeps/")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        sweep = module.get_sweep()
    except Exception as error:  # noqa: BLE001  a sweep file may raise anything
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: {type(error).__name__}: {reason}") from error
    if not isinstance(sweep, Sweep):
        found = type(sweep).__name__
        raise ConfigError(f"{path}: get_sweep() returned {found}, expected a Sweep")
    if problem := _problem(sweep):
        raise ConfigError(f"{path}: {problem}")
    return sweep


def _problem(sweep: Sweep) -> str:
    """What is wrong with a sweep; empty if nothing is."""
    names = [arm.name for arm in sweep.arms]
    for name in names:
        if not re.fullmatch(r"[\w.]+", name, re.ASCII):
            return f"arm {name!r}: expected letters, digits, _ and ."
    listed: dict[str, list[Any]] = {"arm": names, "seed": list(sweep.seeds)}
    for what, values in listed.items():
        if not values:
            return f"it has no {what}; expected at least one"
        if twice := [value for value in values if values.count(value) > 1]:
            return f"{what} {twice[0]!r} occurs twice"
    for arm in sweep.arms:
        for key in sweep.seed_keys:
            if key in arm.overrides:
                return f"arm {arm.name!r} overrides {key}, which the seeds set"
    return ""


def runs_of(name: str, sweep: Sweep) -> Iterator[Run]:
    """The first seed of every arm, then the second seed, and so on."""
    for seed in sweep.seeds:
        for arm in sweep.arms:
            yield Run(name, arm, seed, sweep.seed_keys)


def listing(runs: Sequence[Run], done: Collection[str], workdirs: Path) -> str:
    """One line per run with its state and FLOPs, and the FLOPs that are left."""
    lines, of_arm, left = [], dict[str, tuple[int, int]](), 0.0
    for run in runs:
        if run.arm.name not in of_arm:
            steps = run.read_config()["train"]["steps"]
            of_arm[run.arm.name] = run.step_flops(), steps
        flops, steps = of_arm[run.arm.name]
        saved = [int(p.name) for p in (workdirs / run.name).glob("checkpoints/*[0-9]")]
        begun = f"partly: step {max(saved, default=0):,}" if saved else "not begun"
        state = "done" if run.name in done else begun
        left += flops * (steps - max(saved, default=0)) * (state != "done")
        total = f"{flops * steps / 1e9:,.1f} GFLOPs"
        lines.append(f"{run.name:<24} {steps:>7,} steps  {total:>20}  {state}")
    return "\n".join([*lines, f"left: {left / 1e9:,.1f} GFLOPs"]) + "\n"
