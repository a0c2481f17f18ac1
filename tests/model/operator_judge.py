# SPDX-License-Identifier: Apache-2.0
"""What the tests of any operator need: a small network, its steps and derivatives."""

import dataclasses
from functools import cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp

from tests.helpers.tiny import ROWS, tiny_built
from trm_jax.model.sublayers import SUBLAYERS
from trm_jax.training.sharding import put_batch


def changes(*names, **more):
    """Changes for a tiny run whose network is these operators, with one cycle each."""
    cycles = {"rule.trm.h_cycles": 1, "rule.trm.l_cycles": 1}
    return {"model.layers": names, **cycles, **more}


def with_settings(kind, section, **changes):
    """The operator `kind` under another name, with other defaults of its settings."""
    fields = [
        (
            f.name,
            f.type,
            dataclasses.field(default=changes[f.name], metadata=f.metadata),
        )
        for f in dataclasses.fields(kind.Settings)
        if f.name in changes
    ]
    options = {"bases": (kind.Settings,), "frozen": True, "kw_only": True}
    settings = dataclasses.make_dataclass("Settings", fields, **options)
    return type(kind.__name__, (kind,), {"section": section, "Settings": settings})


@cache
def alone(name):
    """The operator with its parameters, an input, and random weights of its output.

    `value(params, hidden)` is the weighted sum of its output. Noise is added to the
    parameters: where they start as ones or zeros, equal values would hide a mistake.
    """
    config = tiny_built(changes(name)).recipe.model.config
    kind = SUBLAYERS[name]
    sizes = config.operator(kind.section), config.grid_shape, config.prefix_len
    module = kind(*sizes)
    keys = iter(jax.random.split(jax.random.key(0), 100))
    shape = (2, config.seq_len, config.d_model)
    hidden, weights = (jax.random.normal(next(keys), shape) for _ in range(2))
    params = jax.jit(module.init)(next(keys), hidden)["params"]
    params = jax.tree.map(
        lambda p: p + 0.1 * jax.random.normal(next(keys), p.shape, p.dtype), params
    )

    def apply(params, hidden, module=module):
        return module.apply({"params": params}, hidden)

    def value(params, hidden):
        return (weights * apply(params, hidden)).sum()

    def forward_value(params, hidden):
        form = dataclasses.replace(sizes[0], **kind.forward_mode)
        return (weights * apply(params, hidden, kind(form, *sizes[1:]))).sum()

    return SimpleNamespace(
        kind=kind,
        params=params,
        hidden=hidden,
        apply=jax.jit(apply),
        value=value,
        forward_value=forward_value,
    )


def slopes(world, num_directions=3, step=1e-4):
    """Directional derivatives of an operator's value, in float64.

    Each comes from the gradient, from a central difference, and from forward mode in
    a form of the operator that supports it.
    """
    args = world.params, world.hidden
    args, fn = jax.tree.map(lambda a: a.astype(jnp.float64), args), world.value
    grads = jax.jit(jax.grad(fn, argnums=tuple(range(len(args)))))(*args)
    fn = jax.jit(fn)
    tangent = jax.jit(lambda at, move: jax.jvp(world.forward_value, at, move)[1])
    for i in range(num_directions):
        leaves, tree = jax.tree.flatten(args)
        keys = jax.random.split(jax.random.key(10 + i), len(leaves))
        moves = [
            jax.random.normal(key, leaf.shape, leaf.dtype)
            for key, leaf in zip(keys, leaves, strict=True)
        ]
        of_leaf = zip(jax.tree.leaves(grads), moves, strict=True)
        by_gradient = sum(float((g * m).sum()) for g, m in of_leaf)
        ends = [
            tree.unflatten([a + s * m for a, m in zip(leaves, moves, strict=True)])
            for s in (step, -step)
        ]
        up, down = (float(fn(*end)) for end in ends)
        by_tangent = float(tangent(args, tree.unflatten(moves)))
        yield by_gradient, (up - down) / (2 * step), by_tangent


def trained(names, make_batch, num_steps=3, **more):
    """Yield the tiny run and its state, before the first step and after each step."""
    built = tiny_built(changes(*names, **more))
    first = tiny_built(changes(*names)).init()  # the same on every mesh
    shardings = jax.tree.map(lambda leaf: leaf.sharding, built.state_like)
    state = jax.device_put(jax.device_get(first), shardings)
    yield built, jax.device_get(state)
    for k in range(num_steps):
        state = built.train_step(state, rows_of(built, make_batch, k))
        yield built, jax.device_get(state)


def rows_of(built, make_batch, seed):
    batch = make_batch(seed, built.recipe.model.config, ROWS)
    return put_batch(batch._asdict(), built.mesh)
