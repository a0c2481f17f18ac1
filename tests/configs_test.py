# SPDX-License-Identifier: Apache-2.0
"""Every config builds, documents itself, and has no knob that nothing reads."""

import ast
import dataclasses
import importlib
import inspect
import re

import jax
import pytest

from data_pipeline import sources
from tests.helpers.runs import ROOT
from tests.helpers.tiny import tiny_config, tiny_optim
from trm_jax.model.model import TRM
from trm_jax.training.build import build
from trm_jax.training.sharding import make_mesh
from trm_jax.training.step import (
    init_train_state,
    jit_train_step,
    make_train_step,
)
from trm_jax.training.supervision import init_carry

NAMES = sorted(
    p.stem for p in (ROOT / "configs").glob("*.py") if not p.stem.startswith("__")
)
HYBRIDS = ["mamba2_mlp_t", "mamba2_attn", "mamba2_attn_bidir"]
VARIANTS = {
    "sudoku_extreme": ["mlp_t", "attention", *HYBRIDS],
    "smoke": ["mlp_t", "attention", *HYBRIDS],
    "demo": ["mlp_t", "attention", *HYBRIDS],
    "sudoku_4x4": ["mlp_t", "attention", *HYBRIDS],
    "maze_hard": ["attention", "mamba2_attn"],
    "maze_small": ["attention", "mamba2_attn"],
    "maze_cpu": ["attention", "mamba2_attn"],
    "arc_agi_1": ["attention", "mamba2_attn"],
    "arc_agi_2": ["attention", "mamba2_attn"],
    "arc_small": ["attention", "mamba2_attn"],
}
ARC_OK = ROOT / "tests" / "data_pipeline" / "bad" / "arc_ok"
CASES = [(name, v) for name in NAMES for v in VARIANTS.get(name, [None])]


def config_of(name, variant):
    module = importlib.import_module(f"configs.{name}")
    return module.get_config(*[variant] if variant else [])


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_every_config_builds(name, variant):
    config = config_of(name, variant)
    if config.data.task == "arc":  # its ids must be counted: these three tasks will do
        config.data.update(train=str(ARC_OK), test_subset="training", side=30)
        config.data.update(train_subsets=("training",), test_puzzles=0, max_grid=0)
    built = build(config.to_dict(), sources.spec_of(**config.data).sizes)
    shapes = jax.eval_shape(
        built.train_step, built.state_like, built.state_like.carry.batch
    )
    assert jax.tree.structure(shapes) == jax.tree.structure(built.state_like)


@pytest.mark.parametrize("name", NAMES)
def test_every_config_states_its_command_hardware_and_result(name):
    doc = importlib.import_module(f"configs.{name}").__doc__
    wanted = ["Command:"] if name == "default" else ["Command:", "Hardware:", "Result:"]
    assert all(word in doc for word in wanted)


@pytest.mark.parametrize("name", ["sudoku_extreme", "smoke"])
def test_an_unknown_variant_is_refused(name):
    with pytest.raises(ValueError, match="mlp_t"):
        config_of(name, "mlpt")


def test_every_knob_of_default_has_a_comment_or_a_plain_name():
    source = inspect.getsource(importlib.import_module("configs.default"))
    calls = ast.walk(ast.parse(source))
    knobs = [k for c in calls if isinstance(c, ast.Call) for k in c.keywords]
    values = [k for k in knobs if not isinstance(k.value, ast.Call)]
    plain = {"task", "d_model", "num_heads", "lr", "weight_decay", "b1", "b2"}
    plain |= {"table_weight_decay", "max_supervision_steps", "warmup_steps"}
    plain |= {"eval_every", "log_every", "checkpoint_every", "keep_checkpoints"}
    plain |= {"rope_theta", "batch_size", "ema_decay", "box_cols"}
    lines = source.splitlines()

    def explained(line):
        return "#" in lines[line - 1] or lines[line - 2].strip().startswith("#")

    bare = {k.arg for k in values if not explained(k.value.lineno)}
    assert bare <= plain


def traced(config, optim=None, **step):
    """The jaxpr of a training step, as text without object addresses."""
    model = TRM(config)
    optim = optim or tiny_optim()
    settings = {"loss": "stablemax", "seed": 0, "micro_batches": 1, "log_every": 2}
    settings |= step
    state = jax.eval_shape(
        lambda: init_train_state(model, optim, jax.random.key(0), batch_size=4)
    )
    train_step = make_train_step(model, optim, **settings)
    compiled = jit_train_step(
        train_step, state, make_mesh(1), micro_batches=settings["micro_batches"]
    )
    text = str(compiled.trace(state, init_carry(config, 4).batch).jaxpr)
    return re.sub(r"0x[0-9a-f]+", "", text)


BASE = {"layers": ("mamba2", "attention", "swiglu", "token_mlp"), "swiglu_width": 0}
MODEL_CHANGES = {
    "layers": ("token_mlp", "swiglu"),
    "d_model": 64,
    "num_heads": 4,
    "expansion": 40.0,
    "swiglu_width": 40,
    "token_mlp_width": 40,
    "expand": 4,
    "head_dim": 16,
    "d_state": 8,
    "num_groups": 1,
    "d_conv": 3,
    "chunk_size": 4,
    "ssd_implementation": "recurrent",
    "positions": "learned",
    "rope_theta": 1e3,
    "prefix_len": 3,
    "puzzle_dim": 8,
    "h_cycles": 4,
    "l_cycles": 3,
    "max_supervision_steps": 5,
    "explore_rate": 0.3,
    "dtype": "bfloat16",
    "remat": "full",
    "vocab_size": 8,
    "num_cells": 25,
    "num_puzzles": 6,
}


def test_the_list_of_model_knobs_is_complete():
    fields = {f.name for f in dataclasses.fields(tiny_config())}
    assert set(MODEL_CHANGES) == fields


@pytest.mark.parametrize("knob", MODEL_CHANGES)
def test_every_model_knob_changes_the_step(knob):
    changed = tiny_config(**BASE | {knob: MODEL_CHANGES[knob]})
    assert traced(changed) != traced(tiny_config(**BASE))


OPTIM_CHANGES = {
    "lr": 2e-3,
    "weight_decay": 0.2,
    "table_lr": 2e-2,
    "table_weight_decay": 0.2,
    "b1": 0.8,
    "b2": 0.8,
    "warmup_steps": 5,
    "min_ratio": 0.5,
    "decay_start": 0.5,
    "ema_decay": 0.8,
    "ema_ramp": True,
}


@pytest.mark.parametrize("knob", OPTIM_CHANGES)
def test_every_optimiser_knob_changes_the_step(knob):
    config = tiny_config(layers=("token_mlp",))
    optim = tiny_optim(**{"min_ratio": 0.3} | {knob: OPTIM_CHANGES[knob]})
    assert traced(config, optim) != traced(config, tiny_optim(min_ratio=0.3))


@pytest.mark.parametrize(
    ("knob", "value"),
    [("loss", "softmax"), ("seed", 1), ("micro_batches", 2), ("log_every", 3)],
)
def test_every_step_knob_changes_the_step(knob, value):
    config = tiny_config(layers=("token_mlp",))
    assert traced(config, **{knob: value}) != traced(config)
