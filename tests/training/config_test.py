# SPDX-License-Identifier: Apache-2.0
"""A config with a missing or unused setting is refused in one line."""

import re

import pytest

from tests.helpers.tiny import SIZES, tiny_config
from trm_jax.errors import ConfigError
from trm_jax.training.build import make_recipe
from trm_jax.training.config import read_run


def built(change):
    config = tiny_config()
    change(config)
    return make_recipe(config, SIZES, read_run(config))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("seed"), "seed is absent"),
        (lambda c: c.update(seed=None), "seed = None"),
        (lambda c: c.pop("optim"), "optim is missing, or is not a section"),
        (lambda c: c.update(train=3), "train is missing, or is not a section"),
        (lambda c: c.update(rule=3), "rule is missing, or is not a section"),
        (lambda c: c["rule"].pop("name"), "rule.name is absent"),
        (lambda c: c["rule"].pop("trm"), "rule.trm is missing, or is not a section"),
        (lambda c: c["rule"].update(trm=3), "rule.trm is missing, or is not a section"),
        (lambda c: c["model"].pop("layers"), "model.layers is absent"),
        (lambda c: c["model"].update(layers=None), "model.layers = None"),
        (lambda c: c["model"].update(layers=(1,)), "model.layers"),
        (lambda c: c["model"].pop("dtype"), "model.dtype is absent"),
        (lambda c: c["model"].update(mamba2=[]), "model.mamba2 is missing"),
    ],
)
def test_what_is_missing_or_of_another_kind_is_named(change, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        built(change)


def test_what_nothing_reads_is_refused():
    with pytest.raises(ConfigError, match="rope_theta = 5.0, but nothing reads it"):
        built(
            lambda c: c["model"]["attention"].update(positions="none", rope_theta=5.0)
        )
    with pytest.raises(ConfigError, match="puzzle_dim = 16, but nothing reads it"):
        built(lambda c: c["model"].update(prefix_len=0, puzzle_dim=16))


def test_only_rotary_heads_must_be_even():
    def odd(positions):
        def change(c):
            c["model"]["d_model"] = 6
            c["model"]["attention"].update(positions=positions, num_heads=2)

        return change

    assert built(odd("none")).model.config.d_model == 6
    with pytest.raises(ConfigError, match="num_heads = 2 heads of even width"):
        built(odd("rope"))
