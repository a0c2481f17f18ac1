# SPDX-License-Identifier: Apache-2.0
"""Muon: five published updates, and what it does to which parameter."""

from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from tests.helpers.golden_trm import GOLDEN
from tests.helpers.tiny import tiny_built
from trm_jax.errors import ConfigError
from trm_jax.settings import defaults, read
from trm_jax.training.build import columns
from trm_jax.training.optim.base import Groups, make_schedule
from trm_jax.training.optim.muon import Muon
from trm_jax.training.sharding import in_mesh, make_mesh

MATRICES = ("wide", "tall", "square", "qkv")
DEFAULTS = defaults(Muon)


@cache
def golden():
    with np.load(GOLDEN / "sic_muon.npz") as file:
        return dict(file)


def ours(matrices):
    """Matrices `... out in` of the golden file as a parameter `in, (heads out)`."""
    return np.moveaxis(matrices, -1, 0).reshape(matrices.shape[-1], -1)


def widths(params):
    """Every parameter is one matrix, but for the six heads of qkv."""
    return {n: (8,) * 6 if n == "qkv" else p.shape[1:] for n, p in params.items()}


def groups(params_columns=widths):
    return Groups(lambda p: jax.tree.map(lambda _: True, p), params_columns)


def trajectory(optimizer, first, grads):
    """The parameters after each of the updates."""
    params, state, found = first, optimizer.init(first), []

    @jax.jit
    def step(grads, state, params):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    for each in grads:
        params, state = step(each, state, params)
        found.append(params)
    return found


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-6), ("float64", 1e-9)])
@pytest.mark.parametrize("correction", [False, True])
def test_five_updates_are_the_published_ones(correction, dtype, tolerance):
    g = golden()
    with jax.enable_x64(dtype == "float64"):
        rates = jnp.asarray(g["lr"], dtype)
        chosen = Muon(
            lr=1.0,
            weight_decay=float(g["weight_decay"]),
            momentum=float(g["momentum"]),
            ns_steps=int(g["ns_steps"]),
            coefficients=tuple(g["ns_coefficients"].tolist()),
            bias_correction=correction,
        )
        optimizer = chosen.build(0.0, lambda k: rates[k - 1], 0.0, groups())
        grads = [
            {m: jnp.asarray(ours(g[f"{m}/grads"][k]), dtype) for m in MATRICES}
            for k in range(5)
        ]
        name = "params_optax" if correction else "params"
        first = {m: jnp.asarray(ours(g[f"{m}/{name}"][0]), dtype) for m in MATRICES}
        found = trajectory(optimizer, first, grads)
        for k in range(5):
            for m in MATRICES:
                expected = ours(g[f"{m}/{name}"][k + 1])
                np.testing.assert_allclose(
                    found[k][m], expected, rtol=0, atol=tolerance
                )


def test_the_schedule_is_the_published_one():
    g = golden()
    cosine = make_schedule(1.0, warmup_steps=0, total_steps=10, min_ratio=0.0)
    warm = make_schedule(1.0, warmup_steps=3, total_steps=10, min_ratio=0.1)
    for name, schedule in [("factors", cosine), ("factors_warmup3_min0.1", warm)]:
        found = [float(schedule(t)) for t in range(11)]
        np.testing.assert_allclose(found, g[f"lr_schedule/{name}"], atol=1e-7)


LAYERS = ("mamba2", "attention", "token_mlp", "mamba1", "swiglu")
SETTINGS = {"model.layers": LAYERS, "optim.name": "muon", "optim.weight_decay": 0.5}
SETTINGS |= {"optim.lr": 0.1, "optim.warmup_steps": 0, "optim.muon.weight_decay": 0.3}
MATRICES_OF = {
    "0_mamba2/in_proj/kernel": (64, 64, 32, 32, 8),
    "0_mamba2/out_proj/kernel": (32,),
    "1_attention/qkv/kernel": (16,) * 6,
    "1_attention/out/kernel": (32,),
    "2_token_mlp/gate_up": (24, 24),
    "2_token_mlp/down": (18,),
    "3_mamba1/in_proj/kernel": (64, 64),
    "3_mamba1/x_proj/kernel": (2, 16, 16),
    "3_mamba1/dt_proj/kernel": (64,),
    "3_mamba1/out_proj/kernel": (32,),
    "4_swiglu/gate_up/kernel": (48, 48),
    "4_swiglu/down/kernel": (32,),
}


@cache
def first_update():
    """Parameters, random gradients and the first update of a network of everything."""
    built = tiny_built(SETTINGS)
    like, rng = built.state_like.params, np.random.default_rng(0)
    params, grads = (
        jax.tree.map(lambda p: rng.normal(size=p.shape).astype(p.dtype), like)
        for _ in range(2)
    )
    optimizer = built.recipe.optim.optimizer
    update = jax.jit(lambda g, p: optimizer.update(g, optimizer.init(p), p)[0])
    updates = update(grads, params)
    flat = (flatten_dict(tree, sep="/") for tree in (params, grads, updates))
    return built, *map(jax.device_get, flat)


def test_every_matrix_of_the_operators_is_declared_and_nothing_else():
    built, params, *_ = first_update()
    of = columns(built.recipe.model.config)
    found = flatten_dict(of(unflatten_dict(params, sep="/")), sep="/")
    assert {k.removeprefix("net/"): w for k, w in found.items() if w} == MATRICES_OF
    for name, widths in found.items():
        assert not widths or sum(widths) == params[name].shape[1]
    hrm = {"low": {"1_attention": {"qkv": {"kernel": jnp.ones((32, 96))}}}}
    assert jax.tree.leaves(of(hrm)) == [16] * 6


def test_every_matrix_is_orthogonalised_by_itself():
    _, params, grads, updates = first_update()
    for name, of_columns in MATRICES_OF.items():
        g, u = grads[f"net/{name}"], updates[f"net/{name}"]
        u = -u - 0.02 * 0.3 * params[f"net/{name}"]  # without the decay: lr wd p
        edges = np.cumsum(of_columns)[:-1]
        for part, grad in zip(
            np.split(u, edges, 1), np.split(g, edges, 1), strict=True
        ):
            left, sizes, right = np.linalg.svd(grad, full_matrices=False)
            x = sizes / np.linalg.norm(sizes)
            for _ in range(3):
                x = 3.4445 * x - 4.775 * x**3 + 2.0315 * x**5
            scale = 0.02 * max(1, grad.shape[1] / grad.shape[0]) ** 0.5
            np.testing.assert_allclose(part, scale * (left * x) @ right, atol=1e-6)


def test_all_else_is_adams_and_only_embeddings_and_heads_of_it_decay():
    _, params, grads, updates = first_update()
    others = params.keys() - {f"net/{name}" for name in MATRICES_OF}
    assert len(others) == 15
    for name in others:
        adam = -0.1 * np.sign(grads[name])  # the first step of Adam, not of NAdam
        decays = not name.startswith("net/")
        decay = -0.1 * 0.5 * params[name] * decays
        np.testing.assert_allclose(updates[name], adam + decay, atol=1e-5)


def test_updates_can_be_sized_by_their_mean_square():
    update = Muon(rms=0.2).sized(jnp.stack([jnp.eye(3), jnp.eye(3)], axis=1))
    np.testing.assert_allclose(update[:, 1], 0.2 * 3**0.5 * np.eye(3), rtol=1e-6)
    np.testing.assert_allclose(
        Muon().sized(jnp.ones((2, 1, 8))), np.full((2, 1, 8), 2.0)
    )


def test_coefficients_may_differ_between_iterations():
    table = (3.0, -4.0, 2.0, 2.0, -1.0, 0.5)
    x = jnp.array([[2.0, 0.0], [0.0, 1.0]])

    def first(**changes):
        muon = Muon(lr=1.0, weight_decay=0.0, **changes)
        one = groups(lambda p: {"x": (2,)})
        optimizer = muon.build(0.0, lambda k: 1.0, 0.0, one)
        return optimizer.update({"x": x}, optimizer.init({"x": x}), {"x": x})[0]["x"]

    s = np.array([2.0, 1.0]) / 5**0.5
    for a, b, c in (table[:3], table[3:]):
        s = a * s + b * s**3 + c * s**5
    found = first(ns_steps=2, coefficients=table)
    np.testing.assert_allclose(found, -np.diag(s), atol=1e-6)
    chex.assert_trees_all_close(
        first(ns_steps=2, coefficients=table[:3]),
        first(ns_steps=2, coefficients=table[:3] * 2),
        rtol=1e-6,
    )


@pytest.mark.parametrize("numbers", [(), (1.0,), (1.0,) * 6])
def test_a_wrong_number_of_coefficients_is_refused(numbers):
    with pytest.raises(ConfigError, match=r"muon\.coefficients = .*ns_steps = 3"):
        read(Muon, DEFAULTS | {"coefficients": numbers}, "optim.muon")


def test_a_gradient_of_zero_moves_nothing_but_decay():
    optimizer = Muon(weight_decay=0.0).build(1.0, lambda k: 1.0, 0.0, groups())
    params = {"wide": jnp.ones((2, 3))}
    zeros = {"wide": jnp.zeros((2, 3))}
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_array_equal(updates["wide"], 0.0)


def test_two_devices_of_fsdp_update_as_one_does():
    g = golden()
    optimizer = Muon(lr=0.1, weight_decay=0.5).build(0.1, lambda k: 1.0, 0.5, groups())
    params = {m: jnp.asarray(ours(g[f"{m}/params"][0]), "float32") for m in MATRICES}
    grads = {m: jnp.asarray(ours(g[f"{m}/grads"][0])) for m in MATRICES}

    def step(grads, params):
        return optimizer.update(grads, optimizer.init(params), params)

    one = jax.jit(step)(grads, params)
    mesh = make_mesh(1, 2)
    halves = NamedSharding(mesh, P("fsdp"))
    program = jax.jit(in_mesh(step, mesh), in_shardings=halves)
    two = program(*jax.device_put((grads, params), halves))
    chex.assert_trees_all_close(*jax.device_get((two, one)), atol=1e-6)
