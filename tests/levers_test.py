# SPDX-License-Identifier: Apache-2.0
"""Variants join networks and levers; a choice of another rule moves settings."""

import importlib
import math
import re

import jax
import pytest

from configs import _levers as levers
from configs import default
from configs.sweeps import levers_6x6
from tests.helpers.runs import ROOT
from trm_jax import api
from trm_jax.errors import ConfigError
from trm_jax.settings import flatten
from trm_jax.training.build import build
from trm_jax.training.choices import implied
from trm_jax.training.config import read_run


@pytest.mark.parametrize(
    ("variant", "found"),
    [
        ("mamba2_attn", ("mamba2_attn", [])),
        ("eqr", ("mlp_t", ["eqr"])),
        ("urm", ("attention_conv", ["urm"])),
        ("mlp_t+urm", ("mlp_t", ["urm"])),
        ("mamba2_attn+eqr+lipschitz", ("mamba2_attn", ["eqr", "lipschitz"])),
        ("eqr+every_cycle", ("mlp_t", ["eqr", "every_cycle"])),
    ],
)
def test_a_variant_is_a_network_and_levers(variant, found):
    assert levers.split(variant, "mlp_t") == found


@pytest.mark.parametrize("variant", ["x", "mlp_t+x", "eqr+mlp_t", "mlp_t+", ""])
def test_another_name_in_a_variant_is_refused(variant):
    with pytest.raises(ConfigError, match=r"unknown variant .* expected a network"):
        api.get_config(f"sudoku_extreme:{variant or '+'}")


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("eqr+eqr", "names the lever 'eqr' twice"),
        ("urm+flow", "chooses the rules urm and flow"),
        ("random_starts+anchored_starts", "chooses the starts random_starts and anch"),
        ("mlp_t+rope2d", "the lever rope2d needs a network with attention"),
        ("urm+gated_norm", "gated_norm needs a network with swiglu or token_mlp"),
        ("eqr+mamba2_attn", "'mamba2_attn'; expected a network first"),
    ],
)
def test_what_cannot_be_joined_is_refused(variant, words):
    with pytest.raises(ConfigError, match=re.escape(words)):
        api.get_config(f"sudoku_extreme:{variant}")


def test_a_config_without_variants_says_so():
    with pytest.raises(ConfigError, match="^config sudoku_cpu has no variants; found"):
        api.get_config("sudoku_cpu:eqr")


@pytest.mark.parametrize(
    "names", [("lipschitz", "eqr"), ("muon", "wta"), ("cgar", "urm", "wta")]
)
def test_the_order_of_levers_does_not_matter(names):
    one, other = (
        api.get_config(f"sudoku_extreme:{'+'.join(order)}")
        for order in (names, names[::-1])
    )
    assert one.to_dict() == other.to_dict()
    plain = api.get_config(f"sudoku_extreme:{names[1]}").to_dict()
    assert (one.to_dict() == plain) == (names == ("muon", "wta"))  # wta has muon


def test_levers_are_the_arms_of_the_sweeps():
    for name, settings in levers_6x6.LEVERS.items():
        if name in levers.LEVERS and not settings[0]:
            by_name = api.get_config(f"demo:mlp_t+{name}").to_dict()
            arm = api.get_config("demo:mlp_t")
            arm.update_from_flattened_dict(settings[1])
            assert by_name == arm.to_dict(), name
    norm = api.get_config("demo:mamba2_mlp_t+gated_norm").model
    assert norm.token_mlp.inner_norm
    assert not norm.swiglu.inner_norm


def test_a_curriculum_ends_in_the_cycles_of_its_config():
    def phases(name):
        rule = api.get_config(f"{name}:cgar").rule.trm
        return list(zip(rule.phase_h_cycles, rule.phase_l_cycles, strict=True))

    assert phases("sudoku_extreme") == [(1, 2), (2, 4)]  # of 3 x 6, as published
    assert phases("arc_agi_1") == [(1, 1), (2, 2)]  # of 3 x 4
    assert phases("demo") == [(1, 1), (2, 1)]  # of 2 x 2


@pytest.mark.parametrize("lever", levers.LEVERS)
def test_a_lever_alone_makes_a_config_that_differs_and_is_read(lever):
    network = {"rope2d": "attention"}.get(lever, "mlp_t")
    config, plain = (api.get_config(f"demo:{network}{of}") for of in (f"+{lever}", ""))
    read_run(config.to_dict())
    found, before = config.to_dict(), plain.to_dict()
    changed = {name for name in before if found[name] != before[name]}
    assert changed & {"rule", "optim", "model"}
    assert config.model.layers == plain.model.layers


WITH_LEVERS = ["demo", "sudoku_extreme", "sudoku_4x4", "maze_hard", "maze_small"]
WITH_LEVERS += ["maze_cpu", "nonogram", "arc_agi_1", "arc_agi_2", "arc_small"]


@pytest.mark.parametrize("name", WITH_LEVERS)
def test_every_lever_joins_every_config_that_takes_levers(name):
    for lever, values in levers.LEVERS.items():
        network = "attention+" if lever == "rope2d" else ""
        config = api.get_config(f"{name}:{network}{lever}")
        read_run(config.to_dict())
        rule = config.rule.name if lever != "wta" else config.rule.wta.inner
        for key, value in values.items():
            expected = rule if value == "RULE" else value
            assert flatten(config.to_dict())[key.replace("RULE", rule)] == expected


def test_the_docs_name_every_config_that_takes_levers():
    text = (ROOT / "docs" / "levers.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"A variant of (.*?) is a\s+network", text, re.DOTALL)
    assert re.findall(r"`(\w+)\.py`", sentence) == WITH_LEVERS


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        *(
            (f"sudoku_extreme:{lever}", lever)
            for lever in ("eqr", "wta", "flow", "urm")
        ),
        ("sudoku_extreme:muon", "trm"),
        *((f"maze_hard:{lever}", "trm") for lever in ("rope2d", "lipschitz")),
        *((f"{name}:flow", "flow") for name in ("maze_hard", "arc_agi_1", "arc_agi_2")),
        ("arc_agi_1:urm", "urm"),
    ],
)
def test_every_published_recipe_is_read(name, rule):
    config = api.get_config(name)
    read_run(config.to_dict())
    assert config.rule.name == rule


@pytest.mark.parametrize(
    ("lever", "batch_size", "steps"), [("wta", 192, 36_000), ("muon", 384, 7_000)]
)
def test_the_recipes_of_speed_is_confidence_have_its_settings(lever, batch_size, steps):
    config = api.get_config(f"sudoku_extreme:{lever}")
    train, model, optim = config.train, config.model, config.optim
    assert (train.batch_size, train.steps) == (batch_size, steps)
    assert (model.prefix_len, model.registers) == (0, 1)
    assert config.rule.wta.align_starts == (10 if lever == "wta" else 0)
    assert (optim.lr, optim.weight_decay, optim.clip_norm) == (1e-4, 1.0, 1.0)
    assert (optim.muon.lr, optim.muon.lr * optim.muon.weight_decay) == (0.02, 1e-4)
    shape = optim.warmup_steps, optim.min_ratio, optim.decay_shape, optim.ema_decay
    assert shape == (0, 0.0, "cosine", 0.9)
    rule = config.rule.trm
    assert (rule.h_cycles, rule.l_cycles, rule.halt_weight) == (6, 9, 0.05)
    assert (rule.cell_loss, rule.label_smoothing) == ("softmax", 0.2)


@pytest.mark.parametrize("lever", ["rope2d", "lipschitz"])
def test_the_recipes_for_mazes_have_the_settings_of_their_authors(lever):
    config = api.get_config(f"maze_hard:{lever}")
    train, model, optim = config.train, config.model, config.optim
    assert (train.batch_size, train.steps, train.eval_every) == (128, 16_000, 500)
    assert (model.dtype, model.attention.positions) == ("float32", "rope_2d")
    tokens = model.prefix_len, model.registers, model.registers_trained
    assert tokens == (1, 15, False)
    assert model.attention.inner_norm
    assert model.swiglu.inner_norm
    assert (optim.muon.lr, optim.muon.lr * optim.muon.weight_decay) == (0.005, 1e-4)
    assert (optim.warmup_steps, optim.min_ratio, optim.ema_decay) == (0, 1.0, 0.0)
    rule = config.rule.trm
    assert (rule.h_cycles, rule.l_cycles) == (3, 4)
    assert rule.lipschitz_weight == (1e-7 if lever == "lipschitz" else 0.0)
    plain = api.get_config("maze_hard")
    assert not plain.model.attention.inner_norm


def test_a_recipe_changes_nothing_that_another_lever_sets():
    for variant in ("urm+muon", "urm+wta"):
        rule = api.get_config(f"sudoku_extreme:{variant}").rule.urm
        assert (rule.h_cycles, rule.l_cycles) == (2, 6)
        assert rule.label_smoothing == 0.2  # the recipe of wta and muon
    assert api.get_config("sudoku_extreme:wta").rule.trm.l_cycles == 9
    rule = api.get_config("sudoku_extreme:smoothing+muon").rule.trm
    assert (rule.label_smoothing, rule.l_cycles) == (0.1, 9)


def test_the_curriculum_of_a_joined_recipe_has_its_cycles():
    rule = api.get_config("sudoku_extreme:cgar+wta").rule.trm
    assert (rule.h_cycles, rule.l_cycles) == (6, 9)
    assert rule.phase_h_cycles == (2, 4)
    assert rule.phase_l_cycles == (3, 6)


def test_levers_join_with_each_other_and_with_a_network():
    config = api.get_config("sudoku_extreme:mamba2_attn+eqr+lipschitz")
    assert config.model.layers == default.LAYERS["mamba2_attn"]
    assert (config.rule.name, config.rule.eqr.lipschitz_weight) == ("eqr", 1e-7)
    assert config.rule.trm.lipschitz_weight == 0
    assert config.model.prefix_len == 0  # EqR's recipe for Sudoku
    assert config.model.dtype == "float32"


@pytest.mark.parametrize("variant", ["wta+eqr+every_cycle", "eqr+every_cycle+wta"])
def test_winner_takes_all_wraps_the_other_rule_in_any_order(variant):
    config = api.get_config(f"demo:mamba2_attn+{variant}")
    assert (config.rule.name, config.rule.wta.inner) == ("wta", "eqr")
    assert config.rule.eqr.every_cycle
    assert not config.rule.trm.every_cycle
    read_run(config.to_dict())


def test_urm_has_its_own_cycles_whatever_the_recipe_has():
    config = api.get_config("arc_agi_1:urm")
    assert api.get_config("arc_agi_1").rule.trm.l_cycles == 4
    assert (config.rule.urm.h_cycles, config.rule.urm.l_cycles) == (2, 6)
    assert config.rule.trm.l_cycles == 6  # the default again


def test_urm_has_the_published_number_of_parameters():
    config = api.get_config("arc_agi_1:urm")
    config.mesh.data = 1
    sizes = {"vocab_size": 12, "grid_shape": (30, 30), "num_puzzles": 1, "blank": -1}
    like = build(config.to_dict(), sizes).state_like
    assert sum(math.prod(p.shape) for p in jax.tree.leaves(like.params)) == 13_663_234


def changed(before, **values):
    after = before.copy_and_resolve_references()
    after.update_from_flattened_dict(values)
    return after.to_dict()


def test_a_rule_takes_over_what_the_last_one_had_and_gives_the_rest_up():
    before = default.get_config()
    before.rule.trm.update(h_cycles=2, l_cycles=4, grad_cycles=2)
    after = changed(before, **{"rule.name": "hrm"})
    assert implied(before.to_dict(), after) == {
        "rule.trm.h_cycles": 3,
        "rule.trm.l_cycles": 6,
        "rule.trm.grad_cycles": 1,
        "rule.hrm.h_cycles": 2,
        "rule.hrm.l_cycles": 4,
    }
    given = {"rule.trm.h_cycles", "rule.hrm.l_cycles"}
    found = implied(before.to_dict(), after, given)
    assert found.keys() == {
        "rule.trm.l_cycles",
        "rule.trm.grad_cycles",
    }, "a value that the user gave neither moves nor gives way"


def test_operators_and_optimisers_only_give_up_what_was_set():
    before = default.get_config()
    before.model.swiglu.width = 48
    before.optim.adam_atan2.b1 = 0.5
    after = changed(before, **{"model.layers": ("token_mlp",), "optim.name": "adamw"})
    known = importlib.import_module("trm_jax.training.config").default_config()
    assert implied(before.to_dict(), after) == {
        "model.swiglu.width": 0,
        "optim.adam_atan2.b1": known["optim"]["adam_atan2"]["b1"],
    }


def test_a_section_that_neither_choice_reads_stays_as_it_is():
    before = default.get_config()
    before.rule.loop.loops = 3
    assert implied(before.to_dict(), changed(before, **{"rule.name": "hrm"})) == {}
