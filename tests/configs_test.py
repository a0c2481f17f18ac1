# SPDX-License-Identifier: Apache-2.0
"""Every config builds, documents itself, and has no knob that nothing reads."""

import dataclasses
import importlib
import re
from functools import cache

import jax
import numpy as np
import pytest

from data_pipeline import tasks
from tests.helpers.runs import ROOT
from tests.helpers.tiny import tiny_built, tiny_config
from trm_jax.model.config import ModelSettings
from trm_jax.model.sublayers import SUBLAYERS
from trm_jax.rules import RULES
from trm_jax.rules.curriculum import Curriculum
from trm_jax.rules.halting import Halting
from trm_jax.training.build import build
from trm_jax.training.optim import OPTIMIZERS, OptimSettings

NAMES = sorted(
    p.stem for p in (ROOT / "configs").glob("*.py") if not p.stem.startswith("_")
)
HYBRIDS = ["mamba2_mlp_t", "mamba2_attn", "mamba2_attn_bidir"]
VARIANTS = {
    "sudoku_extreme": ["mlp_t", "attention", *HYBRIDS, "eqr", "mamba2_attn+eqr", "urm"]
    + ["muon", "mamba2_attn+muon+cgar", "wta", "flow", "eqr+wta", "mamba2_mlp_t+wta"],
    "smoke": ["mlp_t", "attention", *HYBRIDS],
    "demo": ["mlp_t", "attention", *HYBRIDS, "mlp_t+eqr+lipschitz"],
    "sudoku_4x4": ["mlp_t", "attention", *HYBRIDS],
    "maze_hard": ["attention", "mamba2_attn", "lipschitz", "rope2d", "flow"],
    "maze_small": ["attention", "mamba2_attn"],
    "maze_cpu": ["attention", "mamba2_attn"],
    "arc_agi_1": ["attention", "mamba2_attn", "urm", "flow"],
    "arc_agi_2": ["attention", "mamba2_attn", "urm", "flow"],
    "arc_small": ["attention", "mamba2_attn"],
    "nonogram": [
        n + d for n in ("mlp_t", "attention", "mamba2_attn") for d in ("", "_4")
    ],
}
ARC_OK = ROOT / "tests" / "data_pipeline" / "bad" / "arc_ok"
CASES = [(name, v) for name in NAMES for v in VARIANTS.get(name, [None])]


def config_of(name, variant):
    module = importlib.import_module(f"configs.{name}")
    return module.get_config(*[variant] if variant else [])


def built_from(name, variant):
    config = config_of(name, variant)
    config.mesh.data = 1
    if config.data.task == "arc":  # its ids are counted: three tasks suffice
        config.data.update(train=str(ARC_OK), test_puzzles=0)
        config.data.arc.update(test_subset="training", train_subsets=("training",))
        config.data.arc.update(side=30, max_grid=0)
    return build(config.to_dict(), tasks.spec_of(config.data.to_dict()).sizes)


@pytest.mark.parametrize(("name", "variant"), CASES)
def test_every_config_builds(name, variant):
    built_from(name, variant)


# One network of each kind; the others are built from the same parts.
@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("demo", "mlp_t"),
        pytest.param("maze_hard", "attention", marks=pytest.mark.slow),
        pytest.param("arc_small", "mamba2_attn", marks=pytest.mark.slow),
    ],
)
def test_a_step_of_a_config_keeps_the_shape_of_its_state(name, variant):
    built = built_from(name, variant)
    like = built.state_like
    shapes = jax.eval_shape(built.train_step, like, like.carry.batch)
    assert jax.tree.structure(shapes) == jax.tree.structure(like)


@pytest.mark.parametrize(
    ("name", "variant"), [("sudoku_4x4", "mlp_t"), ("loops", "trm-mamba2-4x4")]
)
def test_as_many_different_4x4_puzzles_exist_as_a_config_asks_for(name, variant):
    data = config_of(name, variant).data.to_dict()
    loaded = tasks.load(data)
    assert len(loaded.test.puzzles.inputs) == data["test_puzzles"]


@pytest.mark.parametrize("name", NAMES)
def test_every_config_states_its_command_hardware_and_result(name):
    doc = importlib.import_module(f"configs.{name}").__doc__
    wanted = ["Command:"] if name == "default" else ["Command:", "Hardware:", "Result:"]
    assert all(word in doc for word in wanted)


@pytest.mark.parametrize("name", ["sudoku_extreme", "smoke"])
def test_an_unknown_variant_is_refused(name):
    with pytest.raises(ValueError, match="mlp_t"):
        config_of(name, "mlpt")


@cache
def traced(changes):
    """The jaxpr of a training step and its constants, without object addresses."""
    built = tiny_built(dict(changes))
    like = built.state_like
    closed = built.train_step.trace(like, like.carry.batch).jaxpr
    constants = [np.asarray(each).tobytes() for each in constants_of(closed)]
    return re.sub(r"0x[0-9a-f]+", "", str(closed)), constants


def constants_of(closed):
    """The constants of a closed jaxpr and of the jaxprs in it."""
    yield from closed.consts
    for eqn in closed.jaxpr.eqns:
        for value in jax.tree.leaves(list(eqn.params.values())):
            if hasattr(value, "consts"):
                yield from constants_of(value)


def fields_of(section, place):
    return {f"{place}.{field.name}": field for field in dataclasses.fields(section)}


# The rule whose step is the fastest to trace; those of rules have their own.
PLAIN = {"model.layers": ("swiglu",), "rule.name": "one_latent"}
# Some knobs are read only if these settings are changed as well.
NEEDS = {
    "model.swiglu.expansion": {"model.swiglu.width": 0},
    "model.token_mlp.expansion": {"model.token_mlp.width": 0},
    "model.registers_trained": {"model.registers": 2},
    "optim.decay_start": {"optim.min_ratio": 0.5},
    "optim.decay_shape": {"optim.min_ratio": 0.5},
    "optim.decay_all": {"model.layers": ("mamba1",)},
    "rule.hrm.unroll": {"rule.hrm.grad_calls": 3},
    **{
        f"rule.{name}.{knob}": {
            f"rule.{name}.grow_updates": 4,
            f"rule.{name}.grow_cycles_to": 2,
            f"rule.{name}.h_cycles": 3,
        }
        for name in ("trm", "one_latent", "eqr", "urm", "flow")
        for knob in ("grow_updates", "grow_cycles_to")
    },
    "rule.hrm.grow_calls_to": {"rule.hrm.grow_updates": 4, "rule.hrm.grow_calls_to": 4},
    "rule.hrm.grow_updates": {"rule.hrm.grow_updates": 4, "rule.hrm.grow_calls_to": 4},
}
PHASES = {"phase_ends": (0.5,), "phase_h_cycles": (1,), "phase_l_cycles": (1,)}
OTHERS = {"phase_ends": (0.4,), "phase_h_cycles": (2,), "phase_l_cycles": (2,)}
IN_PHASES = [name for name, kind in RULES.items() if issubclass(kind, Curriculum)]
NEEDS |= {
    f"rule.{name}.{knob}": {f"rule.{name}.{k}": v for k, v in PHASES.items()}
    for name in IN_PHASES
    for knob in PHASES
}
# Values of knobs for which `another` finds no valid one.
VALUES = {
    "model.layers": ("swiglu", "swiglu"),
    "model.d_model": 64,
    "model.dtype": "bfloat16",
    "model.attention.num_heads": 4,
    "model.swiglu.expansion": 40.0,
    "model.conv_swiglu.expansion": 40.0,
    "model.token_mlp.expansion": 40.0,
    "model.mamba2.expand": 4,
    "model.mamba2.head_dim": 16,
    "model.mamba2.num_groups": 1,
    "model.mamba2.implementation": "recurrent",
    "rule.wta.inner": "hrm",
    "rule.wta.copied": "z",  # "auto" stands for y here
    "optim.muon.coefficients": (3.0, -4.0, 2.0),
}
VALUES |= {f"rule.{n}.{knob}": v for n in IN_PHASES for knob, v in OTHERS.items()}
# The sections of rules and optimisers are tried one by one. Other tests compare the
# initial weights of Mamba-1, the starts of chains, which are drawn with the weights,
# the forms of attention and of SwiGLUs, which are one on a CPU, and the sampler of a
# flow, which only evaluation has.
NO_CHOICE = {"rule.name", "optim.name", "model.mamba1.init", "rule.flow.gamma"} | {
    "rule.wta.align_starts",
    *(f"model.{name}.implementation" for name in ("attention", "swiglu", "token_mlp")),
}


def knobs():
    """Yield (path, field, other settings) for knobs of step, operators and rules."""
    for place, section in [
        ("model", ModelSettings),
        ("halting", Halting),
        ("optim", OptimSettings),
    ]:
        yield from ((*item, PLAIN) for item in fields_of(section, place).items())
    for name, kind in {kind.section: kind for kind in SUBLAYERS.values()}.items():
        layer = next(n for n, kind in SUBLAYERS.items() if kind.section == name)
        fields = fields_of(kind.Settings, f"model.{name}")
        chosen = PLAIN | {"model.layers": (layer,)}
        yield from ((*item, chosen) for item in fields.items())
    for place, registry in [("rule", RULES), ("optim", OPTIMIZERS)]:
        for name, kind in registry.items():
            chosen = PLAIN | {f"{place}.name": name}
            fields = fields_of(kind, f"{place}.{name}")
            yield from ((*item, chosen) for item in fields.items())


def another(field, now):
    """A value of the knob that differs from `now`."""
    if choices := field.metadata.get("choices"):
        return next(choice for choice in choices if choice != now)
    if isinstance(now, bool):
        return not now
    return now + 1 if isinstance(now, int) else now / 2 or 0.5


def is_slow(path):
    """Whether the knob is slow to test: these take many times as long to trace."""
    section, _, name = path.rpartition(".")
    here = {"model.mamba1": "d_state", "model.mamba2": "d_state"}
    # One knob of each is tested here.
    here |= {"rule.hrm": "grad_calls", "rule.eqr": "damping", "rule.urm": "l_cycles"}
    here |= {"rule.one_latent": "l_cycles", "rule.flow": "order"}
    here |= {"rule.wta": "chains", "optim.adamw": "b1", "optim.muon": "momentum"}
    here |= {"rule.loop": "supervise", "model.conv_swiglu": "sides"}
    here |= {"model.attention": "positions", "model.token_mlp": "width"}
    other = section in here and name != here[section]
    branches = name.startswith("grow_") or name in PHASES  # two traces of several
    return other or (branches and path != "rule.trm.phase_ends")


@pytest.mark.parametrize(
    ("path", "field", "beside"),
    [
        pytest.param(*k, id=k[0], marks=[pytest.mark.slow] if is_slow(k[0]) else [])
        for k in knobs()
        if k[0] not in NO_CHOICE
    ],
)
def test_every_knob_of_the_step_changes_it(path, field, beside):
    beside = beside | NEEDS.get(path, {})
    now = tiny_config(beside)
    for name in path.split("."):
        now = now[name]
    value = VALUES[path] if path in VALUES else another(field, now)
    assert value != now
    changed = tuple((beside | {path: value}).items())
    assert traced(changed) != traced(tuple(beside.items()))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 1),
        ("train.micro_batches", 2),
        ("train.log_every", 3),
        ("train.on_non_finite", "skip"),
        ("sizes.vocab_size", 8),
        ("sizes.grid_shape", (5, 5)),
        ("sizes.num_puzzles", 6),
    ],
)
def test_run_and_sizes_change_the_step(path, value):
    changed = tuple((PLAIN | {path: value}).items())
    assert traced(changed) != traced(tuple(PLAIN.items()))
