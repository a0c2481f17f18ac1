# SPDX-License-Identifier: Apache-2.0
"""all_config.yaml, the settings beside published weights, read as a config of ours."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from trm_jax.beside import pipeline
from trm_jax.errors import ConfigError
from trm_jax.training.config import default_config, read_run
from trm_jax.weights.tensors import one_line

# The published models of which this package has the rule.
CLASSES = {
    "trm@TinyRecursiveReasoningModel_ACTV1": "trm",
    "hrm@HierarchicalReasoningModel_ACTV1": "hrm",
    "hrm_act_v1@HierarchicalReasoningModel_ACTV1": "hrm",
}
LOSSES = {"stablemax_cross_entropy": "stablemax", "softmax_cross_entropy": "softmax"}
LOSS_HEAD = "losses@ACTLossHead"
# Keys with the same values on both sides; RULE is the name of the rule.
ARCH = {
    "H_cycles": "rule.RULE.h_cycles",
    "L_cycles": "rule.RULE.l_cycles",
    "hidden_size": "model.d_model",
    "forward_dtype": "model.dtype",
    "halt_max_steps": "halting.max_supervision_steps",
    "halt_exploration_prob": "halting.explore_rate",
}
RUN = {
    "global_batch_size": "train.batch_size",
    "lr": "optim.lr",
    "lr_min_ratio": "optim.min_ratio",
    "lr_warmup_steps": "optim.warmup_steps",
    "weight_decay": "optim.weight_decay",
    "beta1": "optim.adam_atan2.b1",
    "beta2": "optim.adam_atan2.b2",
    "puzzle_emb_lr": "optim.table_lr",
    "puzzle_emb_weight_decay": "optim.table_weight_decay",
    "seed": "seed",
}
# What other keys become is in the functions below.
_ALSO = ("ema", "ema_rate", "data_path", "data_paths", "data_paths_test")
# Our models compute with these values, whatever a file says.
FIXED = {"rms_norm_eps": 1e-5, "no_ACT_continue": True}
# The published defaults of keys of arch that a file may leave out.
ABSENT = FIXED | {
    "rope_theta": 10_000.0,
    "mlp_t": False,
    "forward_dtype": "bfloat16",
    "H_layers": 0,
    "puzzle_emb_len": 0,
}


class _Arch:
    """The section arch, whose keys are taken one by one."""

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self.left, self._where = dict(values), where

    def take(self, key: str) -> Any:
        """The value of a key, or its published default."""
        if key not in self.left and key not in ABSENT:
            raise ConfigError(f"{self._where}: arch.{key} is missing")
        return self.left.pop(key, ABSENT.get(key))

    def count(self, key: str, low: int = 1) -> int:
        """The same for a whole number."""
        value = self.take(key)
        if type(value) is not int or not low <= value < 2**16:
            self.refuse(key, value, f"a whole number >= {low}")
        return value

    def refuse(self, key: str, value: Any, expected: object) -> NoReturn:
        """Raise ConfigError for a value."""
        raise ConfigError(
            f"{self._where}: arch.{key} = {one_line(repr(value))}; expected {expected}"
        )


def read(path: Path) -> dict[str, Any]:
    """The content of all_config.yaml. Raises ConfigError."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read: {one_line(error)}") from error
    if not isinstance(value, dict) or not isinstance(value.get("arch"), dict):
        raise ConfigError(f"{path}: expected the settings of a published run with arch")
    return value


def to_config(
    published: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], list[str]]:
    """Our config, and the keys outside arch that have no counterpart in it.

    `config.data` keeps its defaults, except for the folder of the arrays. Raises
    ConfigError, also for a key of arch without a counterpart, since the network might
    depend on it.
    """
    arch = _Arch(published["arch"], where)
    config = default_config() | {"data": pipeline("settings").defaults()}
    name = str(arch.take("name"))
    if (kind := name.rpartition(".")[2]) not in CLASSES:
        arch.refuse("name", name, f"one that ends in {', '.join(CLASSES)}")
    rule = CLASSES[kind]
    config["rule"]["name"] = rule
    config["rule"][rule]["cell_loss"] = _loss(arch)
    for key, value in FIXED.items():
        if (found := arch.take(key)) != value:
            arch.refuse(key, found, value)
    _set_network(config, arch)
    for key, place in ARCH.items():
        put(config, place.replace("RULE", rule), arch.take(key))
    if arch.left:
        raise ConfigError(
            f"{where}: arch.{min(map(str, arch.left))} has no counterpart here, and "
            "the network may depend on it; give a config of ours if it does not"
        )
    rest = {k: v for k, v in published.items() if k != "arch"}
    for key, value in rest.items():
        if key in RUN:
            put(config, RUN[key], value)
    averages = bool(rest.get("ema"))
    config["optim"]["ema_decay"] = rest.get("ema_rate", 0.999) if averages else 0.0
    config["eval"]["batch_size"] = config["train"]["batch_size"]
    without = [str(key) for key in rest if key not in RUN and key not in _ALSO]
    without += _set_folders(config, rest)
    try:
        read_run(config)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    return config, sorted(without)


def _loss(arch: _Arch) -> str:
    """Our name of the loss of the cells."""
    loss = arch.take("loss")
    known = [{"name": LOSS_HEAD, "loss_type": kind} for kind in LOSSES]
    if loss not in known:
        arch.refuse("loss", loss, f"{LOSS_HEAD} with one of {', '.join(LOSSES)}")
    return LOSSES[loss["loss_type"]]


def _set_network(config: dict[str, Any], arch: _Arch) -> None:
    """The layers, and the settings that belong to the operators."""
    model, rule = config["model"], config["rule"]["name"]
    blocks, high = arch.count("L_layers"), arch.count("H_layers", low=0)
    if rule == "hrm" and high != blocks:
        arch.refuse("H_layers", high, f"L_layers = {blocks}")
    mixer = "token_mlp" if arch.take("mlp_t") else "attention"
    model["layers"] = (mixer, "swiglu") * blocks
    heads, theta = arch.take("num_heads"), arch.take("rope_theta")
    positions = arch.take("pos_encodings")
    if positions not in ("rope", "learned", "none"):
        arch.refuse("pos_encodings", positions, "rope, learned or none")
    model["positions"] = "learned" if positions == "learned" else "none"
    model["swiglu"]["expansion"] = arch.take("expansion")
    if mixer == "token_mlp":
        model["token_mlp"]["expansion"] = model["swiglu"]["expansion"]
    else:
        model["attention"]["num_heads"] = heads
        if positions == "rope":
            model["attention"]["rope_theta"] = theta
        else:
            model["attention"]["positions"] = "none"
    width = arch.count("hidden_size")
    arch.left["hidden_size"] = width  # it is taken again, like its neighbours
    dim, length = arch.count("puzzle_emb_ndim"), arch.count("puzzle_emb_len", low=0)
    model["prefix_len"] = length or -(-dim // width)
    model["puzzle_dim"] = 0 if dim == width else dim


def _set_folders(config: dict[str, Any], rest: Mapping[str, Any]) -> list[str]:
    """Set the folder of the arrays; return the keys that name more than one."""
    without = []
    for ours, keys in (
        ("train", ("data_paths", "data_path")),
        ("test", ("data_paths_test",)),
    ):
        for key in keys:
            found = rest.get(key) or []
            folders = [found] if isinstance(found, str) else list(found)
            if len(folders) == 1:
                config["data"][ours] = str(folders[0])
            elif folders:
                without.append(key)
    config["data"]["source"] = "arrays"
    return without


def put(config: dict[str, Any], place: str, value: Any) -> None:
    """Set `a.b.c` of a config."""
    *sections, key = place.split(".")
    for name in sections:
        config = config[name]
    config[key] = value
