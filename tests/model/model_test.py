# SPDX-License-Identifier: Apache-2.0
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.tiny import tiny_config
from trm_jax.errors import ConfigError
from trm_jax.model.layers import matmul, rms_norm, rotary_tables, rotate
from trm_jax.model.model import HALT_BIAS, TRM, init_variables

PAPER = {
    "d_model": 512,
    "num_heads": 8,
    "swiglu_width": 0,
    "token_mlp_width": 0,
    "prefix_len": 16,
    "num_puzzles": 1,
}
MLP_T = {"layers": ("token_mlp", "swiglu") * 2, "positions": "none"}
SUDOKU = {"num_cells": 81, "vocab_size": 11}
MAZE = {"num_cells": 900, "vocab_size": 6}
ARC = {"num_cells": 900, "vocab_size": 12}

initialised = jax.jit(init_variables, static_argnums=0)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (SUDOKU, 6_828_034),
        (MAZE, 6_822_914),
        (ARC, 6_829_058),
        (MLP_T | SUDOKU, 5_028_866),
        (MLP_T | MAZE, 18_795_522),
    ],
    ids=["attn-sudoku", "attn-maze", "attn-arc", "mlp_t-sudoku", "mlp_t-maze"],
)
def test_parameter_counts_are_the_published_ones(changes, expected):
    model = TRM(
        tiny_config(**PAPER | {"layers": ("attention", "swiglu") * 2} | changes)
    )
    params, _ = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    assert sum(math.prod(p.shape) for p in jax.tree.leaves(params)) == expected


def test_inner_widths_round_up_to_256_unless_chosen():
    config = tiny_config()
    widths = [config.inner_width(n, 0) for n in (512, 97, 916)]
    assert widths == [1536, 512, 2560]
    assert config.inner_width(512, 100) == 100


@pytest.mark.parametrize("seed", [0, 1])
def test_initial_distributions_have_the_stated_deviations(seed):
    layers = ("attention", "swiglu", "token_mlp")
    config = tiny_config(**PAPER | SUDOKU | {"layers": layers, "positions": "learned"})
    params, constants = initialised(TRM(config), jax.random.key(seed))
    network = params["network"]
    lecun = {
        512: [
            network["0_attention"]["qkv"]["kernel"],
            network["0_attention"]["out"]["kernel"],
            network["1_swiglu"]["gate_up"]["kernel"],
        ],
        1536: [network["1_swiglu"]["down"]["kernel"]],
        97: [network["2_token_mlp"]["gate_up"]],
    }
    cases = [(w, 1 / math.sqrt(n)) for n, ws in lecun.items() for w in ws]
    cases += [(params["embed_tokens"], 1 / math.sqrt(512))]
    cases += [(params["embed_positions"], 1 / math.sqrt(512))]
    for weights, std in cases:
        four_errors = 4 * std / math.sqrt(2 * weights.size)
        assert abs(float(weights.std()) - std) < four_errors
        assert abs(float(weights.mean())) < 4 * std / math.sqrt(weights.size)
        assert float(jnp.abs(weights).max()) <= 2 * std / 0.8796 + 1e-6
    for start in constants.values():
        assert start.shape == (512,)
        assert abs(float(start.std()) - 1) < 4 / math.sqrt(2 * 512)
    assert (constants["y"] != constants["z"]).any()
    np.testing.assert_array_equal(params["halt_kernel"], 0)
    np.testing.assert_array_equal(params["halt_bias"], HALT_BIAS)


def test_seeds_make_different_weights_and_seed_0_is_a_seed():
    model = TRM(tiny_config())
    draws = [initialised(model, jax.random.key(s))[0] for s in (0, 0, 1)]
    embeddings = [d["embed_tokens"] for d in draws]
    np.testing.assert_array_equal(embeddings[0], embeddings[1])
    assert (embeddings[0] != embeddings[2]).any()


def test_prefix_holds_the_puzzle_vector_and_zeros():
    config = tiny_config(prefix_len=3)
    model = TRM(config)
    params, _ = initialised(model, jax.random.key(0))
    vector = jax.random.normal(jax.random.key(1), (2, config.d_model))
    inputs = jnp.ones((2, config.num_cells), jnp.int32)
    x = model.apply({"params": params}, inputs, vector, method="embed")
    scale = math.sqrt(config.d_model)
    np.testing.assert_allclose(x[:, 0], scale * vector, rtol=1e-6)
    np.testing.assert_array_equal(x[:, 1:3], 0)
    expected = np.broadcast_to(scale * params["embed_tokens"][1], x[:, 3:].shape)
    np.testing.assert_allclose(x[:, 3:], expected, rtol=1e-6)


def test_without_a_prefix_the_first_cell_decides_on_halting():
    model = TRM(tiny_config(prefix_len=0))
    params, _ = initialised(model, jax.random.key(0))
    params["halt_kernel"] = jnp.ones_like(params["halt_kernel"])
    y = jnp.zeros((1, 16, 32)).at[0, 0].set(1.0)
    output = model.apply({"params": params}, y, method="predict")
    assert output.logits.shape == (1, 16, 7)
    np.testing.assert_allclose(output.q_halt, 32 + HALT_BIAS)


def test_every_cell_sees_every_cell(mixer):
    model = TRM(tiny_config(layers=(mixer, "swiglu")))
    params, _ = initialised(model, jax.random.key(0))

    def net(h):
        return model.apply({"params": params}, h, method="refine")[0, :, 0]

    h = jax.random.normal(jax.random.key(1), (1, 18, 32))
    reach = jnp.abs(jax.jacobian(net)(h)[:, 0]).max(-1)
    assert (reach > 0).all()


def test_rms_norm_makes_unit_mean_squares_in_float32():
    h = 100 * jax.random.normal(jax.random.key(0), (3, 8, 5), jnp.bfloat16)
    for axis in (1, 2):
        normed = rms_norm(h, axis=axis)
        assert normed.dtype == jnp.bfloat16
        squares = jnp.mean(jnp.square(normed.astype(jnp.float32)), axis)
        np.testing.assert_allclose(squares, 1, atol=0.02)


def test_rotary_products_depend_on_the_distance_alone():
    h = jax.random.normal(jax.random.key(0), (1, 1, 1, 8))
    turned = rotate(jnp.broadcast_to(h, (1, 9, 1, 8)), *rotary_tables(9, 8, 1e4))
    products = jnp.einsum("blhk,bmhk->lm", turned, turned)
    for distance in range(9):
        diagonal = jnp.diagonal(products, distance)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_matmul_and_its_gradients_are_those_of_the_plain_product(dtype):
    keys = jax.random.split(jax.random.key(0), 3)
    a = jax.random.normal(keys[0], (5, 7), dtype)
    b = jax.random.normal(keys[1], (7, 3), dtype)
    weight = jax.random.normal(keys[2], (5, 3), dtype)

    def loss(product, a, b):
        return (weight * product(a, b)).astype(jnp.float32).sum()

    found = jax.grad(loss, argnums=(1, 2))(matmul, a, b)
    wide = [x.astype(jnp.float32) for x in (a, b)]
    expected = jax.grad(loss, argnums=(1, 2))(jnp.matmul, *wide)
    atol = {"float32": 1e-6, "bfloat16": 0.05}[dtype]
    assert matmul(a, b).dtype == dtype
    for f, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(f, np.float32), e, atol=atol)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layers": ("atention", "swiglu")}, "unknown sublayer 'atention'"),
        ({"layers": ()}, "layers is empty"),
        ({"d_model": 33}, "d_model = 33 is not divisible"),
        ({"d_model": 0}, "d_model = 0"),
        ({"h_cycles": 0}, "h_cycles = 0"),
        ({"explore_rate": 1.5}, "explore_rate = 1.5"),
        ({"positions": "sinus"}, "positions = 'sinus'; expected one of rope"),
        ({"dtype": "float16"}, "dtype = 'float16'"),
        ({"remat": "yes"}, "remat = 'yes'"),
        ({"puzzle_dim": 65}, "puzzle_dim = 65 does not fit"),
    ],
)
def test_bad_settings_are_refused_by_name(changes, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        init_variables(TRM(tiny_config(**changes)), jax.random.key(0))
