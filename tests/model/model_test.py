# SPDX-License-Identifier: Apache-2.0
import math
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.tiny import tiny_built, tiny_config, tiny_recipe
from trm_jax.errors import ConfigError
from trm_jax.model import layers
from trm_jax.model.layers import matmul, rms_norm, rotary_tables, rotate
from trm_jax.model.model import HALT_BIAS, BoundModel, init_params
from trm_jax.model.network import halts_blindly
from trm_jax.model.sublayers.base import inner_width
from trm_jax.training.config import read_run
from trm_jax.types import Batch

PAPER = {
    "model.layers": ("attention", "swiglu") * 2,
    "model.d_model": 512,
    "model.attention.num_heads": 8,
    "model.swiglu.width": 0,
    "model.prefix_len": 16,
    "sizes.num_puzzles": 1,
}
MLP_T = PAPER | {
    "model.layers": ("token_mlp", "swiglu") * 2,
    "model.token_mlp.width": 0,
}
del MLP_T["model.attention.num_heads"]
SUDOKU = {"sizes.grid_shape": (9, 9), "sizes.vocab_size": 11}
MAZE = {"sizes.grid_shape": (30, 30), "sizes.vocab_size": 6}
ARC = {"sizes.grid_shape": (30, 30), "sizes.vocab_size": 12}


@cache
def initialised(seed=0, changes=()):
    """Model and parameters."""
    model = tiny_recipe(dict(changes)).model
    init = jax.jit(partial(init_params, model, None))
    return model, init(jax.random.key(seed))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (PAPER | SUDOKU, 6_828_034),
        (PAPER | MAZE, 6_822_914),
        (PAPER | ARC, 6_829_058),
        (MLP_T | SUDOKU, 5_028_866),
        (MLP_T | MAZE, 18_795_522),
    ],
    ids=["attn-sudoku", "attn-maze", "attn-arc", "mlp_t-sudoku", "mlp_t-maze"],
)
def test_parameter_counts_are_the_published_ones(changes, expected):
    params = tiny_built(changes).state_like.params
    assert sum(p.size for p in jax.tree.leaves(params)) == expected


def test_inner_widths_round_up_to_256_unless_chosen():
    assert [inner_width(0, 4.0, n) for n in (512, 97, 916)] == [1536, 512, 2560]
    assert inner_width(100, 4.0, 512) == 100


@pytest.mark.parametrize("seed", [0, 1])
def test_initial_distributions_have_the_stated_deviations(seed):
    layers = {"model.layers": ("attention", "swiglu", "token_mlp")}
    changes = PAPER | SUDOKU | layers | {"model.token_mlp.width": 0}
    changes["model.positions"] = "learned"
    _, params = initialised(seed, tuple(changes.items()))
    network = params["net"]
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
    np.testing.assert_array_equal(params["halt_kernel"], 0)
    np.testing.assert_array_equal(params["halt_bias"], HALT_BIAS)


def test_the_seed_of_the_config_decides_weights_and_constants():
    first, other = (
        jax.device_get(tiny_built({"model.layers": ("swiglu",), "seed": seed}).init())
        for seed in (0, 1)
    )
    assert (first.params["embed_tokens"] != other.params["embed_tokens"]).all()
    for name in ("y", "z"):
        assert (first.constants[name] != other.constants[name]).all()


@pytest.mark.parametrize("prefix_len", [0, 2])
def test_registers_stand_between_the_prefix_and_the_cells(prefix_len):
    sizes = {"model.prefix_len": prefix_len, "model.registers": 3}
    _, plain = initialised(changes=(("model.prefix_len", prefix_len),))
    model, params = initialised(changes=tuple(sizes.items()))
    c, first = model.config, prefix_len + 3
    assert (c.prefix_len, c.seq_len) == (first, first + c.num_cells)
    assert params.keys() - plain.keys() == {"registers"}
    inputs = jnp.ones((2, c.num_cells), jnp.int32)
    vector = jnp.ones((2, c.d_model))
    x = model.apply({"params": params}, inputs, vector, method="embed")
    x /= math.sqrt(c.d_model)
    assert x.shape == (2, c.seq_len, c.d_model)
    for row in x:
        np.testing.assert_allclose(row[prefix_len:first], params["registers"], 1e-6)
        np.testing.assert_allclose(row[first], params["embed_tokens"][1], 1e-6)
        np.testing.assert_allclose(row[:prefix_len].sum(), c.d_model * (prefix_len > 0))
    logits, _ = model.apply({"params": params}, x, method="predict")
    assert logits.shape == (2, c.num_cells, c.vocab_size)


def test_prefix_holds_the_puzzle_vector_and_zeros():
    model, params = initialised(changes=(("model.prefix_len", 3),))
    config = model.config
    vector = jax.random.normal(jax.random.key(1), (2, config.d_model))
    inputs = jnp.ones((2, config.num_cells), jnp.int32)
    x = model.apply({"params": params}, inputs, vector, method="embed")
    scale = math.sqrt(config.d_model)
    np.testing.assert_allclose(x[:, 0], scale * vector, rtol=1e-6)
    np.testing.assert_array_equal(x[:, 1:3], 0)
    expected = np.broadcast_to(scale * params["embed_tokens"][1], x[:, 3:].shape)
    np.testing.assert_allclose(x[:, 3:], expected, rtol=1e-6)


def test_without_a_prefix_the_first_cell_decides_on_halting():
    model, params = initialised(changes=(("model.prefix_len", 0),))
    assert halting_at(model, params, 0) == 32 + HALT_BIAS


@pytest.mark.parametrize(
    ("chosen", "seen"),
    [
        ("first", {0: 32}),
        ("last", {17: 32}),
        ("mean", dict.fromkeys(range(18), 32 / 18)),
    ],
)
def test_the_halting_logits_are_read_at_the_chosen_position(chosen, seen):
    model, params = initialised(changes=(("halting.halt_position", chosen),))
    for position in (0, 3, 17):
        expected = seen.get(position, 0) + HALT_BIAS
        assert halting_at(model, params, position) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("layers", "blind"),
    [
        (("mamba1", "swiglu"), True),
        (("mamba2", "mamba1"), True),
        (("mamba1", "mamba1_backward"), False),
        (("mamba2_both",), False),
        (("mamba2_column", "mamba1_row_column"), True),
        (("mamba1_four",), False),
        (("conv_swiglu",), True),
        (("mamba1", "attention"), False),
        (("token_mlp", "swiglu"), False),
    ],
)
def test_a_halting_logit_that_sees_no_cell_is_noticed(layers, blind):
    changes = {"model.layers": layers}
    assert halts_blindly(tiny_recipe(changes).model.config) == blind
    for position in ("last", "mean"):
        more = changes | {"halting.halt_position": position}
        assert not halts_blindly(tiny_recipe(more).model.config)


@pytest.mark.parametrize("position", ["first", "last"])
def test_blind_halting_is_what_it_says(position):
    changes = (("model.layers", ("mamba1",)), ("halting.halt_position", position))
    model, params = initialised(changes=changes)
    params = params | {"halt_kernel": jnp.ones_like(params["halt_kernel"])}
    inputs = jax.random.randint(jax.random.key(0), (2, 16), 1, 7)

    def q_halt(model, inputs):
        x = model.embed(inputs, jnp.zeros((2, model.config.puzzle_width)))
        return model.predict(model.refine(x, "net"))[1][:, 0]

    first, second = model.apply({"params": params}, inputs, method=q_halt)
    assert (first == second) == (position == "first")


def halting_at(model, params, position):
    """The halting logit of a state that is 1 at one position, with weights of 1."""
    params = params | {"halt_kernel": jnp.ones_like(params["halt_kernel"])}
    c = model.config
    y = jnp.zeros((1, c.seq_len, c.d_model)).at[0, position].set(1.0)
    logits, q = model.apply({"params": params}, y, method="predict")
    assert logits.shape == (1, c.num_cells, c.vocab_size)
    assert q.shape == (1, 2)
    return float(q[0, 0])


def test_every_cell_sees_every_cell(mixer):
    model, params = initialised(changes=(("model.layers", (mixer, "swiglu")),))

    def net(h):
        return model.apply({"params": params}, h, "net", method="refine")[0, :, 0]

    h = jax.random.normal(jax.random.key(1), (1, 18, 32))
    reach = jnp.abs(jax.jit(jax.jacobian(net))(h)[:, 0]).max(-1)
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


@pytest.mark.parametrize(("is_wide", "result"), [(True, "f32"), (False, "bf16")])
def test_the_instruction_set_chooses_the_bfloat16_product(is_wide, result, monkeypatch):
    monkeypatch.setattr(layers, "has_avx512", lambda: is_wide)
    a, b = jnp.ones((5, 7), jnp.bfloat16), jnp.ones((7, 3), jnp.bfloat16)
    fn = jax.grad(lambda a, b: matmul(a, b).sum().astype(jnp.float32), (0, 1))
    text = jax.jit(fn).lower(a, b).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) >= 2
    assert all(f"x{result}>" in line.rpartition("->")[2] for line in products)


def test_the_instruction_set_is_read_from_the_system(tmp_path):
    for flags, expected in (("fma avx2", False), ("avx2 avx512f avx512dq", True)):
        (tmp_path / flags).write_text(f"flags : {flags}\n")
        assert layers.has_avx512(tmp_path / flags) == expected
    assert not layers.has_avx512(tmp_path / "absent")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.layers": ()}, "layers is empty"),
        ({"model.d_model": 33}, "d_model = 33 cannot be divided"),
        ({"model.d_model": 0}, "d_model = 0; expected a whole number >= 1"),
        ({"rule.trm.h_cycles": 0}, "rule.trm.h_cycles = 0; expected a whole"),
        ({"halting.explore_rate": 1.5}, "explore_rate = 1.5; expected a finite"),
        ({"model.attention.positions": "sinus"}, "'sinus'; expected one of rope, "),
        ({"model.positions": "rope"}, "positions = 'rope'; expected one of none"),
        ({"model.dtype": "float16"}, "dtype = 'float16'"),
        ({"model.dtype": "float64"}, "dtype = 'float64', but jax_enable_x64 is False"),
        ({"rule.trm.remat": "yes"}, "remat = 'yes'; expected one of none, dots, full"),
        ({"model.puzzle_dim": 65}, "puzzle_dim = 65 does not fit"),
    ],
)
def test_bad_settings_are_refused_by_name(changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny_recipe(changes)


def test_an_unknown_sublayer_is_refused_by_name():
    config = tiny_config()
    config["model"]["layers"] = ("atention", "swiglu")
    with pytest.raises(ConfigError, match=r"model.layers = 'atention'.*attention"):
        read_run(config)


@pytest.mark.parametrize(("blank", "given"), [(1, [True, False]), (-1, [False, False])])
def test_clues_are_the_cells_that_are_not_blank(blank, given):
    module = tiny_recipe({"sizes.blank": blank}).model
    tokens = jnp.array([[2, 1]], jnp.int32)
    rows = Batch(tokens, tokens, tokens > 0, tokens[:, 0], jnp.ones(1))
    model = BoundModel({}, {}, None, module)
    np.testing.assert_array_equal(model.given(rows)[0], given)


def test_a_network_that_a_model_lacks_is_an_attribute_error():
    model = BoundModel({}, {}, None, tiny_recipe().model)
    with pytest.raises(AttributeError, match="low"):
        model.low  # noqa: B018
    assert model.own is None
