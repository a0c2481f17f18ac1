# SPDX-License-Identifier: Apache-2.0
"""The Mamba-2 sublayer: published numbers, directions, sizes and initial values."""

import math
from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from configs import default
from tests.helpers.golden_trm import GOLDEN, MAMBA2, to_layout
from tests.helpers.tiny import OPERATORS, tiny_recipe
from tests.ops.cases import FORMS, cuda_context
from trm_jax.errors import ConfigError
from trm_jax.model.layers import rms_norm
from trm_jax.model.sublayers import SUBLAYERS, Mamba2
from trm_jax.settings import defaults, read
from trm_jax.training.build import build

DIRECTIONS = ("mamba2", "mamba2_backward", "mamba2_both")
LENGTH = 13


def mixer(name="mamba2", **settings):
    """An operator of the Mamba-2 family, at tiny sizes unless others are given."""
    values = defaults(Mamba2.Settings) | OPERATORS["mamba2"] | settings
    return SUBLAYERS[name](
        read(Mamba2.Settings, values, "model.mamba2"), (1, LENGTH), 0
    )


def golden(name, part):
    """A golden mixer's weights, or their gradients, as our parameters."""
    file = np.load(GOLDEN / f"{name}.npz")
    flat = {path: to_layout(k, file[f"{part}/{k}"]) for k, path in MAMBA2.items()}
    return jax.tree.map(jnp.asarray, unflatten_dict(flat))


@pytest.mark.parametrize("implementation", ["auto", *FORMS])
@pytest.mark.parametrize("name", ["mamba2_mixer", "mamba2_mixer_groups"])
def test_the_published_output_and_gradients_come_out(name, implementation):
    file = np.load(GOLDEN / f"{name}.npz")
    mamba2 = mixer(
        d_state=int(file["d_state"]),
        head_dim=int(file["headdim"]),
        expand=int(file["expand"]),
        num_groups=int(file["ngroups"]),
        chunk_size=int(file["chunk_size"]),
        implementation=implementation,
    )

    @jax.jit
    def run(params, hidden, cotangent):
        y, vjp = jax.vjp(lambda p, h: mamba2.apply({"params": p}, h), params, hidden)
        return y, *vjp(cotangent)

    params = golden(name, "weights")
    arrays = (jnp.asarray(file[k]) for k in ("u", "cot_y"))
    y, grads, hidden_grad = run(params, *arrays)
    np.testing.assert_allclose(y, file["y"], atol=2e-6)
    np.testing.assert_allclose(hidden_grad, file["du"], rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(grads, golden(name, "grads"), rtol=1e-4, atol=1e-5)


def test_on_a_gpu_all_directions_are_one_launch_of_each_kernel():
    hidden = jnp.zeros((2, LENGTH, 32), jnp.float32)
    params = jax.eval_shape(mixer().init, jax.random.key(0), hidden)

    def launches(name):
        def gradient(params, hidden):
            return jax.grad(lambda p: mixer(name).apply(p, hidden).sum())(params)

        with cuda_context():
            traced = jax.jit(gradient).trace(params, hidden)
            text = traced.lower(lowering_platforms=("cuda",)).as_text()
        return text.count("custom_call @__gpu$xla.gpu.triton")

    # For y, the states, their cotangents and the gradients of the chunks.
    assert launches("mamba2_four") == launches("mamba2") >= 4


@pytest.fixture(scope="module")
def tiny():
    """Weights and input of a small Mamba-2, the same for all directions."""
    hidden = jax.random.normal(jax.random.key(0), (2, LENGTH, 32), jnp.float32)
    params = jax.jit(mixer().init)(jax.random.key(1), hidden)["params"]
    # Weights that are all ones would hide which channel uses which weight.
    noise = jax.random.normal(jax.random.key(2), (64,), jnp.float32)
    return params | {"norm_weight": 1 + 0.3 * noise}, hidden


@cache
def applied(name):
    return jax.jit(mixer(name).apply)


def outputs(name, tiny, hidden):
    return applied(name)({"params": tiny[0]}, hidden)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_each_direction_sees_its_own_side_and_both_see_everything(name, tiny):
    hidden = tiny[1][:1]

    def sums(hidden):
        return outputs(name, tiny, hidden)[0].sum(-1)

    seen = (jax.jit(jax.jacrev(sums))(hidden)[:, 0] != 0).any(-1)
    sees_past = np.tri(LENGTH, dtype=bool)
    all_of_it = np.ones_like(sees_past)
    expected = dict(zip(DIRECTIONS, (sees_past, sees_past.T, all_of_it), strict=True))
    np.testing.assert_array_equal(seen, expected[name])


def test_backward_is_the_mirror_image_and_both_is_the_sum(tiny):
    hidden = tiny[1]
    forward, backward, both = (outputs(name, tiny, hidden) for name in DIRECTIONS)
    mirrored = outputs("mamba2", tiny, hidden[:, ::-1])[:, ::-1]
    np.testing.assert_allclose(backward, mirrored, atol=1e-6)
    np.testing.assert_allclose(both, forward + backward, atol=1e-5)
    assert jnp.abs(forward - backward).max() > 0.1


def test_all_directions_have_the_same_parameters(tiny):
    params, hidden = tiny
    for name in DIRECTIONS:
        shapes = jax.eval_shape(mixer(name).init, jax.random.key(0), hidden)
        chex.assert_trees_all_equal_shapes_and_dtypes(shapes["params"], params)


def test_the_gated_norm_runs_within_each_group(tiny):
    # This out_proj passes through the first half of its input, which is group 0.
    params, hidden = tiny
    passing = jnp.eye(64, 32, dtype=jnp.float32)
    params = params | {"norm_weight": jnp.ones(64), "out_proj": {"kernel": passing}}
    found = outputs("mamba2", (params, hidden), hidden)
    np.testing.assert_allclose(rms_norm(found), found, rtol=1e-2, atol=1e-3)


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_a_mixer_of_the_paper_has_1719600_parameters():
    operator = Mamba2(Mamba2.Settings(), (1, 8), 0)
    hidden = jax.ShapeDtypeStruct((1, 8, 512), jnp.float32)
    assert count(jax.eval_shape(operator.init, jax.random.key(0), hidden)) == 1_719_600


@pytest.mark.parametrize(
    ("variant", "vocab_size", "num_cells", "expected"),
    [
        ("mamba2_attn", 12, 900, 6_860_386),
        ("mamba2_attn", 11, 81, 6_859_362),
        ("mamba2_attn", 6, 900, 6_854_242),
        ("mamba2_attn_bidir", 11, 81, 6_859_362),
        ("mamba2_mlp_t", 11, 81, 3_600_482),
    ],
    ids=["attn-arc", "attn-sudoku", "attn-maze", "attn-bidir-sudoku", "mlp_t-sudoku"],
)
def test_hybrids_have_the_stated_sizes(variant, vocab_size, num_cells, expected):
    config = default.get_config()
    default.set_network(config, variant)
    config.mesh.data = 1
    assert config.model.prefix_len == 16
    sizes = {"vocab_size": vocab_size, "grid_shape": (1, num_cells)}
    sizes |= {"num_puzzles": 1, "blank": -1}
    assert count(build(config.to_dict(), sizes).state_like.params) == expected


@pytest.mark.parametrize("seed", [0, 1])
def test_first_values_are_the_stated_ones(seed):
    hidden = jnp.zeros((1, 4, 256), jnp.float32)
    init = jax.jit(mixer(head_dim=1, num_groups=1).init)
    params = init(jax.random.key(seed), hidden)["params"]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(params))
    rate, dt = jnp.exp(params["A_log"]), jax.nn.softplus(params["dt_bias"])
    assert rate.shape == dt.shape == (512,)
    # The rate is uniform in [1, 16] and dt log-uniform in [1e-3, 1e-1]: all values are
    # within these bounds, and some are near both ends.
    assert 1 <= rate.min() < 2
    assert 15 < rate.max() <= 16.0001
    assert abs(rate.mean() - 8.5) < 1
    assert 0.999e-3 <= dt.min() < 1.3e-3
    assert 0.0955 < dt.max() <= 0.1001  # softplus(log(dt)) <= log1p(0.1) = 0.0953
    assert abs(jnp.log10(dt).mean() + 2) < 0.1
    np.testing.assert_array_equal(params["D"], 1)
    np.testing.assert_array_equal(params["norm_weight"], 1)
    for name in ("conv_kernel", "conv_bias"):
        assert jnp.abs(params[name]).max() <= 0.5  # a window of 4
        assert abs(params[name].std() - 0.5 / math.sqrt(3)) < 0.03
    assert params["conv_kernel"].shape == (4, 512 + 2 * 16)
    kernels = flatten_dict({k: params[k] for k in ("in_proj", "out_proj")})
    for kernel in kernels.values():
        assert abs(kernel.std() * math.sqrt(kernel.shape[0]) - 1) < 0.02


MAMBA2_LAYERS = {"model.layers": ("mamba2", "swiglu")}


def of_mamba2(**settings):
    own = {f"model.mamba2.{name}": value for name, value in settings.items()}
    return MAMBA2_LAYERS | own


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"head_dim": 24}, r"expand \* model.d_model = 64 .* num_groups = 48"),
        ({"num_groups": 3}, r"expand \* model.d_model = 64 .* num_groups = 24"),
        ({"d_state": 12}, r"d_state.*12.*implementation = 'pallas'"),
        ({"chunk_size": 12}, r"chunk_size.*12.*implementation = 'pallas'"),
        ({"d_state": 2048}, r"d_state.*2048.*at most 32 KiB"),
        ({"d_state": 0}, r"model.mamba2.d_state = 0; expected a whole number >= 1"),
        ({"implementation": "magic"}, r"model.mamba2.implementation = 'magic'.*auto"),
    ],
)
def test_sizes_that_do_not_fit_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        tiny_recipe(of_mamba2(**{"implementation": "pallas"} | settings))


def test_powers_of_two_are_asked_of_heads_too():
    changes = of_mamba2(head_dim=24, num_groups=1, implementation="pallas")
    with pytest.raises(ConfigError, match=r"\(24, 16, 8\).*pallas.*powers"):
        tiny_recipe(changes | {"model.d_model": 96})


def test_what_mosaic_refuses_is_an_error_of_the_config():
    with pytest.raises(ConfigError, match=r"model.mamba2.implementation: mosaic "):
        tiny_recipe(of_mamba2(implementation="mosaic"))


def test_kernels_alone_ask_for_powers_of_two():
    sizes = {"head_dim": 24, "num_groups": 1, "d_state": 12}
    for implementation in ("auto", "chunked", "recurrent"):
        changes = of_mamba2(**sizes, implementation=implementation)
        tiny_recipe(changes | {"model.d_model": 96})


def test_a_setting_of_an_operator_that_the_network_lacks_is_refused():
    with pytest.raises(ConfigError, match="nothing in this run reads model.mamba2"):
        tiny_recipe({"model.mamba2.head_dim": 24})
