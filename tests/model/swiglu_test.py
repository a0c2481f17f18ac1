# SPDX-License-Identifier: Apache-2.0
"""ConvSwiGLU and the gated-norm unit: published numbers, neighbours, sizes."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from tests.helpers.golden_trm import GOLDEN
from tests.helpers.tiny import tiny_built
from trm_jax.model.network import free_of_decay
from trm_jax.model.sublayers import SUBLAYERS
from trm_jax.settings import defaults, read

# Torch names of weights, and our paths.
CONV = {
    "gate_up_proj.weight": ("gate_up", "kernel"),
    "dwconv.weight": ("conv_kernel",),
    "dwconv.bias": ("conv_bias",),
    "down_proj.weight": ("down", "kernel"),
}
GATED = {
    "up_proj.weight": ("gate_up", "kernel"),
    "down_proj.weight": ("down", "kernel"),
}
FILES = {
    "conv_swiglu": ("conv_swiglu", CONV, {}),
    "gated_norm_swiglu": ("swiglu", GATED, {"inner_norm": True}),
}


def operator(name, grid_shape=(1, 19), prefix_len=0, **settings):
    kind = SUBLAYERS[name]
    values = defaults(kind.Settings) | settings
    return kind(read(kind.Settings, values, f"model.{name}"), grid_shape, prefix_len)


def golden(file, part, names):
    """Weights or gradients of a file in our layout; a convolution is `f 1 w`."""
    arrays = {path: file[f"{part}/{name}"] for name, path in names.items()}
    turned = {k: v[:, 0].T if v.ndim == 3 else v.T for k, v in arrays.items()}
    return jax.tree.map(jnp.asarray, unflatten_dict(turned))


@pytest.mark.parametrize("name", FILES)
def test_the_published_output_and_gradients_come_out(name):
    kind, names, settings = FILES[name]
    file = np.load(GOLDEN / f"{name}.npz")
    layer = operator(kind, **settings)

    @jax.jit
    def run(params, hidden, cotangent):
        y, vjp = jax.vjp(lambda p, h: layer.apply({"params": p}, h), params, hidden)
        return y, *vjp(cotangent)

    arrays = (jnp.asarray(file[key]) for key in ("u", "cot_y"))
    y, grads, hidden_grad = run(golden(file, "weights", names), *arrays)
    np.testing.assert_allclose(y, file["y"], atol=1e-5)
    np.testing.assert_allclose(hidden_grad, file["du"], atol=1e-5)
    chex.assert_trees_all_close(grads, golden(file, "grads", names), atol=1e-5)
    count = sum(leaf.size for leaf in jax.tree.leaves(grads))
    assert count == int(file["num_parameters"])


def test_over_positions_the_gated_norm_unit_is_that_of_the_transposed_input():
    keys = jax.random.split(jax.random.key(0), 3)
    hidden, up, down = (
        jax.random.normal(key, shape)
        for key, shape in zip(keys, [(2, 7, 5), (7, 12), (6, 7)], strict=True)
    )
    over_positions, over_channels = (
        operator(name, width=6, inner_norm=True) for name in ("token_mlp", "swiglu")
    )
    found = over_positions.apply({"params": {"gate_up": up, "down": down}}, hidden)
    weights = {"gate_up": {"kernel": up}, "down": {"kernel": down}}
    turned = over_channels.apply({"params": weights}, hidden.swapaxes(1, 2))
    np.testing.assert_allclose(found, turned.swapaxes(1, 2), atol=1e-5)


GRID, PREFIX = (3, 4), 2
LENGTH = PREFIX + math.prod(GRID)


def neighbours(sides, position, reach):
    """Pairs (index in the window, position) of what a position sees, by definition."""
    if sides == "grid" and position >= PREFIX:
        row, column = divmod(position - PREFIX, GRID[1])
        for i, j in np.ndindex(2 * reach + 1, 2 * reach + 1):
            at = row + i - reach, column + j - reach
            if 0 <= at[0] < GRID[0] and 0 <= at[1] < GRID[1]:
                yield (i, j), PREFIX + at[0] * GRID[1] + at[1]
    elif sides == "grid":
        yield (reach, reach), position
    else:
        for i in range(reach + 1 if sides == "left" else 2 * reach + 1):
            if 0 <= position + i - reach < LENGTH:
                yield (i,), position + i - reach


@pytest.mark.parametrize("reach", [1, 2])
@pytest.mark.parametrize("sides", ["left", "both", "grid"])
def test_a_position_is_mixed_with_its_neighbours(sides, reach):
    layer = operator("conv_swiglu", GRID, PREFIX, width=6, sides=sides, reach=reach)
    hidden = jax.random.normal(jax.random.key(0), (2, LENGTH, 8))
    params = layer.init(jax.random.key(1), hidden)["params"]
    weights = jax.tree.map(np.float64, params)
    gate, up = np.split(np.float64(hidden) @ weights["gate_up"]["kernel"], 2, axis=-1)
    inner = gate / (1 + np.exp(-gate)) * up
    mixed = np.zeros_like(inner) + weights["conv_bias"]
    for position in range(LENGTH):
        for index, other in neighbours(sides, position, reach):
            mixed[:, position] += weights["conv_kernel"][index] * inner[:, other]
    expected = (mixed / (1 + np.exp(-mixed))) @ weights["down"]["kernel"]
    found = layer.apply({"params": params}, hidden)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("prefix_len", [0, 2])
@pytest.mark.parametrize("sides", ["left", "both", "grid"])
def test_it_is_known_whether_the_first_position_sees_cells(sides, prefix_len):
    layer = operator("conv_swiglu", GRID, prefix_len, width=6, sides=sides)
    hidden = jax.random.normal(jax.random.key(0), (1, prefix_len + 12, 8))
    other = hidden.at[:, max(1, prefix_len) :].add(1.0)
    params = layer.init(jax.random.key(1), hidden)
    for _ in range(3):
        hidden, other = (h + layer.apply(params, h) for h in (hidden, other))
    sees = layer.first_sees(layer.settings, prefix_len)
    assert (abs(hidden[0, 0] - other[0, 0]).max() > 1e-6) == sees


@pytest.mark.parametrize(
    ("sides", "window"), [("left", (2,)), ("both", (3,)), ("grid", (3, 3))]
)
def test_the_convolution_starts_as_pytorch_starts_it(sides, window):
    layer = operator("conv_swiglu", GRID, PREFIX, sides=sides)
    hidden = jnp.zeros((1, LENGTH, 512), jnp.bfloat16)
    params = jax.jit(layer.init)(jax.random.key(0), hidden)["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert params["conv_kernel"].shape == (*window, 1536)
    assert params["conv_bias"].shape == (1536,)
    limit = 1 / math.sqrt(math.prod(window))
    for name in ("conv_kernel", "conv_bias"):
        assert 0.99 * limit < jnp.abs(params[name]).max() <= limit
        assert abs(float(params[name].std()) * math.sqrt(3) / limit - 1) < 0.05


def test_of_its_parameters_only_the_bias_is_free_of_decay():
    names = "conv_bias", "conv_kernel", "gate_up/kernel", "down/kernel"
    free = [name for name in names if free_of_decay(f"params/net/1_conv_swiglu/{name}")]
    assert free == ["conv_bias"]


def test_the_network_of_urm_has_the_published_number_of_parameters():
    changes = {
        "model.layers": ("attention", "conv_swiglu") * 4,
        "model.d_model": 512,
        "model.attention.num_heads": 8,
        "model.prefix_len": 1,
        "sizes.grid_shape": (30, 30),
        "sizes.vocab_size": 12,
    }
    params = tiny_built(changes).state_like.params
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 13_663_234
