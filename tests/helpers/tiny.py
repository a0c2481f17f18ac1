# SPDX-License-Identifier: Apache-2.0
"""A model small enough for tests, and the optimiser that goes with it."""

from trm_jax.model.config import ModelConfig
from trm_jax.training.optim import make_optim

TINY = {
    "layers": ("attention", "swiglu"),
    "d_model": 32,
    "num_heads": 2,
    "expansion": 4.0,
    "swiglu_width": 48,
    "token_mlp_width": 24,
    "expand": 2,
    "head_dim": 8,
    "d_state": 16,
    "num_groups": 2,
    "d_conv": 4,
    "chunk_size": 8,
    "ssd_implementation": "auto",
    "positions": "rope",
    "rope_theta": 1e4,
    "prefix_len": 2,
    "puzzle_dim": 0,
    "h_cycles": 2,
    "l_cycles": 2,
    "max_supervision_steps": 4,
    "explore_rate": 0.1,
    "dtype": "float32",
    "remat": "none",
    "vocab_size": 7,
    "num_cells": 16,
    "num_puzzles": 5,
}


def tiny_config(**changes):
    return ModelConfig(**(TINY | changes))


def tiny_optim(**changes):
    settings = {
        "lr": 1e-3,
        "weight_decay": 0.1,
        "table_lr": 1e-2,
        "table_weight_decay": 0.1,
        "b1": 0.9,
        "b2": 0.95,
        "warmup_steps": 4,
        "min_ratio": 1.0,
        "decay_start": 0.0,
        "ema_decay": 0.9,
        "ema_ramp": False,
        "total_steps": 100,
    }
    return make_optim(**(settings | changes))
