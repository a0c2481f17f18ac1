# SPDX-License-Identifier: Apache-2.0
"""The Mamba-1 sublayer: published numbers, directions, initial values and sizes."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from tests.helpers.golden_trm import GOLDEN, MAMBA1, to_layout
from trm_jax import api
from trm_jax.errors import ConfigError
from trm_jax.model.sublayers import SUBLAYERS
from trm_jax.model.sublayers.mamba1 import Mamba1Settings
from trm_jax.ops.selective_scan import IMPLEMENTATIONS
from trm_jax.settings import defaults, read
from trm_jax.training.build import build


def mixer(name="mamba1", **settings):
    values = defaults(Mamba1Settings) | settings
    return SUBLAYERS[name](read(Mamba1Settings, values, "model.mamba1"), (1, 19), 0)


FILE = np.load(GOLDEN / "mamba1_mixer.npz")


def golden(part):
    flat = {path: to_layout(k, FILE[f"{part}/{k}"]) for k, path in MAMBA1.items()}
    return jax.tree.map(jnp.asarray, unflatten_dict(flat))


@pytest.mark.parametrize("implementation", ["auto", *IMPLEMENTATIONS])
def test_the_published_output_and_gradients_come_out(implementation):
    layer = mixer(implementation=implementation, chunk_size=8)

    @jax.jit
    def run(params, hidden, cotangent):
        y, vjp = jax.vjp(lambda p, h: layer.apply({"params": p}, h), params, hidden)
        return y, *vjp(cotangent)

    arrays = (jnp.asarray(FILE[name]) for name in ("u", "cot_y"))
    y, grads, hidden_grad = run(golden("weights"), *arrays)
    np.testing.assert_allclose(y, FILE["y"], atol=1e-6)
    np.testing.assert_allclose(hidden_grad, FILE["du"], rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(grads, golden("grads"), rtol=1e-5, atol=1e-5)


def test_without_its_bias_the_convolution_is_that_with_bias_0():
    weights, hidden = golden("weights"), jnp.asarray(FILE["u"])
    zero = weights | {"conv_bias": jnp.zeros_like(weights["conv_bias"])}
    y = mixer().apply({"params": zero}, hidden)
    np.testing.assert_allclose(y, FILE["y_zero_conv_bias"], atol=1e-6)
    del zero["conv_bias"]
    bare = mixer(conv_bias=False)
    np.testing.assert_array_equal(bare.apply({"params": zero}, hidden), y)
    shapes = jax.eval_shape(bare.init, jax.random.key(0), hidden)["params"]
    assert "conv_bias" not in shapes


def test_directions_mirror_each_other():
    weights, hidden = {"params": golden("weights")}, jnp.asarray(FILE["u"])
    forward, backward, both = (
        mixer(name).apply(weights, hidden)
        for name in ("mamba1", "mamba1_backward", "mamba1_both")
    )
    mirrored = mixer().apply(weights, hidden[:, ::-1])[:, ::-1]
    np.testing.assert_allclose(backward, mirrored, atol=1e-6)
    np.testing.assert_allclose(both, forward + backward, atol=1e-5)
    assert jnp.abs(forward - backward).max() > 0.01


def parameters(d_model=512, **settings):
    hidden = jnp.zeros((1, 4, d_model))
    return jax.jit(mixer(**settings).init)(jax.random.key(0), hidden)["params"]


@pytest.mark.parametrize(
    ("settings", "expected"), [({}, 1_694_720), ({"conv_bias": False}, 1_693_696)]
)
def test_a_layer_has_the_published_number_of_parameters(settings, expected):
    params = jax.eval_shape(lambda: parameters(**settings))
    assert sum(math.prod(p.shape) for p in jax.tree.leaves(params)) == expected


@pytest.mark.parametrize(
    ("variant", "expected"), [("mamba1", 8_118_274), ("mamba1_attn", 6_809_602)]
)
def test_the_recipes_have_the_stated_number_of_parameters(variant, expected):
    config = api.get_config(f"sudoku_extreme:{variant}")
    config.mesh.data = 1
    sizes = {"vocab_size": 11, "grid_shape": (9, 9), "num_puzzles": 1, "blank": 1}
    params = build(config.to_dict(), sizes).state_like.params
    assert sum(math.prod(p.shape) for p in jax.tree.leaves(params)) == expected


@pytest.mark.parametrize("init", ["mamba", "plain"])
def test_the_first_weights_are_those_of_the_named_code(init):
    params = parameters(init=init)
    wide, rank = 1024, 32
    rates = np.exp(params["A_log"])
    np.testing.assert_allclose(rates, np.tile(np.arange(1, 17), (wide, 1)), rtol=1e-6)
    np.testing.assert_array_equal(params["D"], 1)
    std = {
        name: float(np.std(params[name]["kernel"])) for name in ("in_proj", "x_proj")
    }
    out, dt = params["out_proj"]["kernel"], params["dt_proj"]["kernel"]
    assert np.abs(out).max() <= 1 / math.sqrt(wide)  # uniform in both
    assert np.std(out) == pytest.approx(1 / math.sqrt(3 * wide), rel=0.01)
    steps = np.log1p(np.exp(params["dt_bias"]))
    if init == "mamba":
        assert std["in_proj"] == pytest.approx(1 / math.sqrt(3 * 512), rel=0.01)
        assert std["x_proj"] == pytest.approx(1 / math.sqrt(3 * wide), rel=0.02)
        assert np.abs(dt).max() <= 1 / math.sqrt(rank)
        assert np.std(dt) == pytest.approx(1 / math.sqrt(3 * rank), rel=0.02)
        assert steps.min() >= 1e-3 * (1 - 1e-4)
        assert steps.max() <= 1e-1 * (1 + 1e-4)
        assert np.log(steps).mean() == pytest.approx(math.log(1e-2), abs=0.15)
        assert np.std(params["conv_kernel"]) == pytest.approx(0.289, rel=0.02)
        assert np.std(params["conv_bias"]) == pytest.approx(0.289, rel=0.05)
    else:
        assert std["in_proj"] == pytest.approx(1 / math.sqrt(512), rel=0.01)
        assert std["x_proj"] == pytest.approx(1 / math.sqrt(wide), rel=0.02)
        assert np.std(dt) == pytest.approx(1 / math.sqrt(rank), rel=0.02)
        np.testing.assert_allclose(steps, math.log(2), rtol=1e-6)
        assert np.std(params["conv_kernel"]) == pytest.approx(1 / 32, rel=0.02)
        np.testing.assert_array_equal(params["conv_bias"], 0)


def test_a_rank_beyond_the_inner_width_is_refused():
    Mamba1Settings(dt_rank=64).check(32, jnp.float32)
    with pytest.raises(ConfigError, match=r"dt_rank = 65; expected at most .* = 64"):
        Mamba1Settings(dt_rank=65).check(32, jnp.float32)
