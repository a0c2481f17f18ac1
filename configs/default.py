# SPDX-License-Identifier: Apache-2.0
"""The default of every setting. The other configs start from this one and edit it.

The operator, rule, optimiser or task that reads a setting also declares it, with its
meaning and range. docs/settings.md lists all settings.

Command: none of its own; see sudoku_extreme.py and smoke.py.
"""

from typing import Any

from ml_collections import ConfigDict, config_dict

from trm_jax.beside import pipeline
from trm_jax.training.choices import implied
from trm_jax.training.config import default_config

# The sublayers of the published networks, and of one that is ours.
LAYERS = {
    "mlp_t": ("token_mlp", "swiglu") * 2,
    "attention": ("attention", "swiglu") * 2,
    "mamba1": ("mamba1", "swiglu") * 2,  # TinyRecursiveMamba
    "mamba1_attn": ("mamba1", "mamba1", "attention", "swiglu"),  # ours
    "mamba2_mlp_t": ("mamba2", "mamba2", "token_mlp"),  # TR-mamba2mlpt
    "mamba2_attn": ("mamba2", "mamba2", "attention", "swiglu"),  # TR-mamba2attn
    "mamba2_attn_bidir": ("mamba2", "mamba2_backward", "attention", "swiglu"),  # ours
    "attention_conv": ("attention", "conv_swiglu") * 4,  # URM
}


def set_network(config: ConfigDict, variant: str) -> None:
    """Set the layers to LAYERS[variant]."""
    if variant not in LAYERS:
        names = ", ".join(LAYERS)
        raise ValueError(f"unknown variant {variant!r}; expected one of {names}")
    config.model.layers = LAYERS[variant]


def set_rule(config: ConfigDict, name: str, **settings: Any) -> None:
    """Choose a rule and change its settings.

    The rule takes over what the config had set for the last one, if it has the setting.
    """
    change(
        config,
        {"rule.name": name} | {f"rule.{name}.{k}": v for k, v in settings.items()},
    )


def change(config: ConfigDict, values: dict[str, Any]) -> None:
    """Set these keys, and what other choices among them imply (training/choices.py)."""
    before = config.to_dict()
    config.update_from_flattened_dict(values)
    config.update_from_flattened_dict(implied(before, config.to_dict(), values))


def set_sizes(config: ConfigDict, **sizes: dict[str, int]) -> None:
    """Change the sections of the operators that the network uses, and no others."""
    for section, values in sizes.items():
        if any(name.startswith(section) for name in config.model.layers):
            config.model[section].update(values)


def get_config() -> ConfigDict:
    """TRM with attention on 9x9 Sudoku, with the settings of TRM's paper."""
    return config_dict.create(**default_config(), data=pipeline("settings").defaults())
