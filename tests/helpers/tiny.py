# SPDX-License-Identifier: Apache-2.0
"""A run small enough for tests: config and sizes, and what is built from them.

Changes are given by path, `{"model.dtype": "bfloat16", "sizes.num_puzzles": 40}`.
"""

from functools import cache

import jax

from trm_jax.model.sublayers import operator
from trm_jax.training.build import build
from trm_jax.training.config import default_config

SIZES = {"vocab_size": 7, "grid_shape": (4, 4), "num_puzzles": 5, "blank": 1}
ROWS = 8
TINY = {
    "model.layers": ("attention", "swiglu"),
    "model.d_model": 32,
    "model.prefix_len": 2,
    "model.dtype": "float32",
    "halting.max_supervision_steps": 4,
    "optim.lr": 1e-3,
    "optim.weight_decay": 0.1,
    "optim.table_lr": 1e-2,
    "optim.table_weight_decay": 0.1,
    "optim.warmup_steps": 4,
    "optim.ema_decay": 0.9,
    "train.steps": 100,
    "train.batch_size": ROWS,
    "train.log_every": 2,
    "eval.batch_size": ROWS,
    "mesh.data": 1,
}
OPERATORS = {  # an operator that is not here has its defaults
    "attention": {"num_heads": 2},
    "swiglu": {"width": 48},
    "token_mlp": {"width": 24},
    "mamba2": {"head_dim": 8, "d_state": 16, "num_groups": 2, "chunk_size": 8},
}


def tiny_sizes(changes=None):
    changed = {
        path.removeprefix("sizes."): value
        for path, value in (changes or {}).items()
        if path.startswith("sizes.")
    }
    return SIZES | changed


def tiny_config(changes=None):
    """A config without `data`, with two cycles of each kind unless changed."""
    changes = TINY | (changes or {})
    config = default_config()
    for name in changes["model.layers"]:
        section = operator(name).section
        config["model"][section].update(OPERATORS.get(section, {}))
    rule = config["rule"][changes.get("rule.name", "trm")]
    rule.update({name: 2 for name in rule if name in ("h_cycles", "l_cycles")})
    for path, value in changes.items():
        *sections, name = path.split(".")
        if sections != ["sizes"]:
            place = config
            for section in sections:
                place = place[section]
            place[name] = value
    return config


def tiny_built(changes=None):
    """Model, step and state of a tiny run; the same object for the same changes."""
    changes = {
        path: value
        for path, value in (changes or {}).items()
        if path == "model.dtype" or path not in TINY or TINY[path] != value
    }
    return _built(tuple(sorted(changes.items())), jax.enable_x64.value)


@cache
def _built(items, x64):
    changes = dict(items)
    if x64:
        changes = {"model.dtype": "float64"} | changes
    return build(tiny_config(changes), tiny_sizes(changes))


def tiny_recipe(changes=None):
    return tiny_built(changes).recipe
