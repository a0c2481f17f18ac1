# SPDX-License-Identifier: Apache-2.0
"""Muon's rate, decay and scope; registers that no optimiser changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from tests.helpers.tiny import tiny_built, tiny_config
from trm_jax.errors import ConfigError
from trm_jax.training.config import completed, read_run
from trm_jax.training.optim import make_optim
from trm_jax.training.optim.base import Groups

SETTINGS = {"optim.name": "muon", "optim.lr": 0.1, "optim.warmup_steps": 0}
SWIGLU = {"model.layers": ("swiglu",)}


def test_every_parameter_of_two_axes_can_be_one_matrix():
    layers = {"model.layers": ("attention", "conv_swiglu", "mamba1")}
    scope = {"optim.muon.scope": "all", "optim.muon.lr": 0.1, "optim.muon.rms": 0.2}
    decay = {"optim.muon.weight_decay": 0.0, "optim.weight_decay": 0.0}
    built = tiny_built(SETTINGS | layers | scope | decay)
    like, rng = built.state_like.params, np.random.default_rng(0)
    grads = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(p.dtype), like)
    optimizer = built.recipe.optim.optimizer
    update = jax.jit(lambda g: optimizer.update(g, optimizer.init(g), g)[0])
    updates = flatten_dict(jax.device_get(update(grads)), sep="/")
    flat = flatten_dict(grads, sep="/")
    others = {"conv_kernel", "conv_bias", "A_log", "D", "dt_bias", "halt_bias", "bias"}
    for name, g in flat.items():
        if name.rsplit("/", 1)[-1] in others or g.ndim < 2:
            np.testing.assert_allclose(updates[name], -0.1 * np.sign(g), rtol=1e-4)
            continue
        left, sizes, right = np.linalg.svd(g, full_matrices=False)
        x = sizes / np.linalg.norm(sizes)
        for _ in range(3):
            x = 3.4445 * x - 4.775 * x**3 + 2.0315 * x**5
        scale = -0.1 * 0.2 * max(g.shape) ** 0.5
        np.testing.assert_allclose(updates[name], scale * (left * x) @ right, atol=1e-4)
    assert {"embed_tokens", "head/kernel", "halt_kernel"} < flat.keys()


def test_matrices_keep_their_rate_and_their_decay_whatever_optim_lr_is():
    def decays(lr):
        """The share that a matrix and an embedding lose in updates 1, 2 and 4."""
        shape = {"optim.warmup_steps": 2, "optim.min_ratio": 0.0, "train.steps": 6}
        rates = {"optim.lr": lr, "optim.weight_decay": 0.5}
        changes = SWIGLU | SETTINGS | shape | rates
        optim = tiny_built(changes).recipe.optim.optimizer
        update = jax.jit(optim.update)
        kernel = {"net": {"0_swiglu": {"down": {"kernel": jnp.ones((3, 3))}}}}
        params = kernel | {"embed_tokens": jnp.ones((2, 3))}
        still, state, found = jax.tree.map(jnp.zeros_like, params), None, []
        for _ in range(4):
            state = optim.init(params) if state is None else state
            updates, state = update(still, state, params)
            found.append([-float(u[0, 0]) for u in jax.tree.leaves(updates)])
        return np.array(found)[[0, 1, 3]].T

    shape = np.array([0.5, 1.0, 0.5])  # warm-up, peak, half of the cosine
    for lr in (3e-3, 0.0):
        embedding, matrix = decays(lr)
        np.testing.assert_allclose(matrix, 1e-4 * shape, rtol=1e-5)  # as published
        np.testing.assert_allclose(embedding, lr * 0.5 * shape, rtol=1e-5)


def test_the_ratio_of_older_configs_is_dropped_or_refused():
    old = tiny_config()
    old["optim"]["muon"]["lr_ratio"] = 200.0
    assert read_run(completed(old)) == read_run(completed(tiny_config()))
    old["optim"]["name"] = "muon"
    with pytest.raises(ConfigError, match=r"muon\.lr_ratio: unknown .* eps, lr,"):
        make_optim(completed(old)["optim"], 10, Groups(lambda p: p, lambda p: p))


@pytest.mark.parametrize(
    "wrong",
    [{"model": 3}, {"optim": None}, {"rule": {"name": ["x"]}}, {"rule": {"trm": 4}}]
    + [{"model": {"layers": layers}} for layers in (5, ["nope"], [["x"]])],
)
def test_an_older_config_of_another_kind_is_one_error(wrong):
    with pytest.raises(ConfigError):
        completed(wrong)


@pytest.mark.parametrize("name", ["adam_atan2", "muon"])
@pytest.mark.parametrize("trained", [False, True])
def test_registers_stay_as_drawn_if_they_are_not_trained(name, trained):
    changes = SWIGLU | {"model.registers": 2, "optim.name": name}
    changes |= {"model.registers_trained": trained, "optim.decay_all": True}
    changes |= {"optim.clip_norm": 1.0, "optim.warmup_steps": 0}
    optim = tiny_built(changes).recipe.optim.optimizer
    params = {"registers": jnp.ones((2, 3)), "head": {"kernel": jnp.ones((3, 4))}}
    grads = jax.tree.map(jnp.ones_like, params)
    grads["head"]["kernel"] *= 0.01  # registers that are kept count in no norm
    updates, state = optim.update(grads, optim.init(params), params)
    assert updates["registers"].any() == trained
    assert updates["head"]["kernel"].all()
    clip = 1 / np.sqrt(6 + 12 * 0.01**2) if trained else 1
    moments = [m for m in jax.tree.leaves(state) if m.shape == (3, 4)]
    np.testing.assert_allclose(moments[0], 0.1 * 0.01 * clip, rtol=1e-5)
