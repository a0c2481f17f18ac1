# SPDX-License-Identifier: Apache-2.0
"""A config of ours as the settings of the published code, all_config.yaml."""

from collections.abc import Mapping
from typing import Any

from trm_jax.errors import ConfigError
from trm_jax.model.sublayers.base import inner_width
from trm_jax.settings import flatten
from trm_jax.weights.all_config import (
    ABSENT,
    ARCH,
    LOSS_HEAD,
    LOSSES,
    RUN,
    to_config,
)

NAMES = {
    "trm": "recursive_reasoning.trm@TinyRecursiveReasoningModel_ACTV1",
    "hrm": "recursive_reasoning.hrm@HierarchicalReasoningModel_ACTV1",
}
# Settings of ours that decide what a model computes.
_DECISIVE = (
    *("model.", "rule.name", "halting.halt_position", "rule.hrm.share_network"),
    *(f"rule.{r}.{k}" for r in NAMES for k in ("h_cycles", "l_cycles", "starts")),
)


def from_config(
    config: Mapping[str, Any],
    seq_len: int,
    where: str,
    imported: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """The published settings of a config, and the keys that they cannot hold.

    Those keys decide only how a model is trained. `imported` are the settings that the
    config was made from: what has no counterpart in a config is taken from there.
    Raises ConfigError if the published code has no model that computes the same.
    """
    rule, flat = config["rule"]["name"], flatten(config)
    if rule not in NAMES:
        raise ConfigError(
            f"{where}: rule.name = {rule!r}, but the published layout holds only "
            f"{' and '.join(NAMES)}; export it as safetensors"
        )
    decay = flat["optim.ema_decay"]
    published = {key: flat[place] for key, place in RUN.items()} | {
        "arch": _arch(config, flat, rule),
        "data_paths": [flat["data.train"]] if flat["data.source"] == "arrays" else [],
        "ema": decay > 0,
        "ema_rate": decay or 0.999,
    }
    arch = (imported or {}).get("arch", {})
    if config["model"]["layers"][0] == "token_mlp":  # reads no number of heads
        published["arch"] |= {k: arch[k] for k in arch if k == "num_heads"}
    # The published code needs a number of epochs; ours counts updates.
    published = {"epochs": 1} | dict(imported or {}) | published
    back, _ = to_config(published, where)
    ours, theirs = (_comparable(each, seq_len) for each in (config, back))
    lost = [key for key in ours if ours[key] != theirs.get(key)]
    for key in lost:
        if key.startswith(_DECISIVE):
            raise ConfigError(
                f"{where}: {key} = {ours[key]!r}, but the published code has no such "
                f"model (nearest: {theirs.get(key)!r}); export it as safetensors"
            )
    return published, ["train.steps", *lost]


def _arch(
    config: Mapping[str, Any], flat: Mapping[str, Any], rule: str
) -> dict[str, Any]:
    """The section arch of the nearest published model."""
    model, attention = config["model"], config["model"]["attention"]
    blocks = max(1, len(model["layers"]) // 2)
    mlp_t = model["layers"][0] == "token_mlp"
    plain = mlp_t or attention["positions"] == "none"
    positions = "none" if plain else "rope"
    if model["positions"] == "learned":
        positions = "learned"
    cell_loss = flat[f"rule.{rule}.cell_loss"]
    loss = next(theirs for theirs, ours in LOSSES.items() if ours == cell_loss)
    arch = {key: flat[place.replace("RULE", rule)] for key, place in ARCH.items()}
    arch |= {
        "name": NAMES[rule],
        "loss": {"name": LOSS_HEAD, "loss_type": loss},
        "H_layers": blocks if rule == "hrm" else 0,
        "L_layers": blocks,
        "num_heads": attention["num_heads"],
        "expansion": _expansion(model["swiglu"], model["d_model"]),
        "puzzle_emb_ndim": model["puzzle_dim"] or model["d_model"],
        "pos_encodings": positions,
    }
    if rule == "trm":  # HRM's code refuses these
        arch |= {"mlp_t": mlp_t, "puzzle_emb_len": model["prefix_len"]}
        arch["no_ACT_continue"] = True
    if attention["rope_theta"] != ABSENT["rope_theta"]:
        arch["rope_theta"] = attention["rope_theta"]
    return arch


def _expansion(section: Mapping[str, Any], width: int) -> float:
    """The expansion that gives the inner width of a SwiGLU."""
    if section["width"]:
        return section["width"] * 3 / (2 * width)
    return section["expansion"]


def _comparable(config: Mapping[str, Any], seq_len: int) -> dict[str, Any]:
    """The settings that decide what is computed and trained, with inner widths."""
    model = dict(config["model"])
    for name, width in (("swiglu", model["d_model"]), ("token_mlp", seq_len)):
        if name in model["layers"]:
            section = model[name]
            inner = inner_width(section["width"], section["expansion"], width)
            kept = {k: v for k, v in section.items() if k != "expansion"}
            model[name] = kept | {"width": inner}
    rule = config["rule"]["name"]
    used = {
        "model": model,
        "rule": {"name": rule, rule: config["rule"][rule]},
        "halting": config["halting"],
        "optim": config["optim"],
    }
    flat = flatten(used)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in flat.items()}
