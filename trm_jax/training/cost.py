# SPDX-License-Identifier: Apache-2.0
"""What a run will cost, before it starts: parameters, FLOPs, memory."""

import dataclasses
import math
import os
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from trm_jax.errors import ConfigError
from trm_jax.model.config import ModelConfig
from trm_jax.model.model import ReasoningModel
from trm_jax.rules.curriculum import phases
from trm_jax.training.build import Built
from trm_jax.training.step import Recipe, init_train_state, loss_and_grads
from trm_jax.training.supervision import row_keys
from trm_jax.types import SCAN_SCOPE

# Where these are counted, they count as one operation per element of the result.
_ELEMENTWISE = {
    *("add", "sub", "mul", "div", "max", "min", "neg", "exp", "exp2", "log", "log1p"),
    *("expm1", "tanh", "logistic", "sqrt", "rsqrt", "integer_pow", "pow", "square"),
    *("cumsum", "select_n"),
}
_REDUCTIONS = {"reduce_sum", "reduce_max"}


def count_flops(jaxpr: Any, *, elementwise: bool = False) -> int:
    """FLOPs of one run of a jaxpr; a loop body counts once per iteration.

    The body of a shard_map counts once per device. Matrix products count everywhere.
    Elementwise work counts only within the scans of operators (SCAN_SCOPE), since a
    scan may consist of such work.
    """
    total = 0
    for eqn in jaxpr.eqns:
        inside = elementwise or SCAN_SCOPE in str(eqn.source_info.name_stack)
        name = eqn.primitive.name
        if name == "dot_general":
            (lhs_contract, _), _ = eqn.params["dimension_numbers"]
            lhs = eqn.invars[0].aval.shape
            depth = math.prod(lhs[axis] for axis in lhs_contract)
            total += 2 * depth * eqn.outvars[0].aval.size
        elif name == "cond":  # only one branch runs: the largest counts
            counts = [
                count_flops(branch.jaxpr, elementwise=inside)
                for branch in eqn.params["branches"]
            ]
            total += max(counts)
        elif inside and name in _ELEMENTWISE:
            total += eqn.outvars[0].aval.size
        elif inside and name in _REDUCTIONS:
            total += eqn.invars[0].aval.size
        else:
            inner = sum(
                count_flops(j, elementwise=inside) for j in inner_jaxprs(eqn.params)
            )
            devices = eqn.params["mesh"].size if name == "shard_map" else 1
            total += inner * eqn.params.get("length", 1) * devices
    return total


def inner_jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs among an equation's parameters; closed jaxprs are unwrapped."""
    for value in jax.tree.leaves(list(params.values())):
        if hasattr(value, "eqns"):
            yield getattr(value, "jaxpr", value)


def step_flops(recipe: Recipe, batch_size: int) -> int:
    """Model FLOPs of the loss and gradients of one training step, from its trace.

    This is the mean over the whole training if the cycles grow.
    Rematerialisation is off, since recomputation does not count as model FLOPs.
    Operators take their plain forms, since FLOPs inside kernels cannot be counted.
    """
    recipe = plain(recipe)
    if len(phases(recipe.rule, recipe.num_updates)) > 1:
        costs = phase_flops(recipe, batch_size)
        return round(total_flops(costs, recipe.num_updates) / recipe.num_updates)

    def traced(key: Any) -> Any:
        state = init_train_state(recipe, key, batch_size)
        vectors = jnp.zeros((batch_size, recipe.model.config.puzzle_width))
        keys, never = row_keys(key, jnp.arange(batch_size)), state.carry.steps
        weights = state.params, state.constants, state.step
        return weights, vectors, state.carry, keys, never

    args = jax.eval_shape(traced, jax.random.key(0))
    grads = partial(loss_and_grads, recipe, batch_size)
    return count_flops(jax.make_jaxpr(grads)(*args).jaxpr)


def phase_flops(recipe: Recipe, batch_size: int) -> list[tuple[int, int]]:
    """The first update of each phase of training, and `step_flops` in it."""
    return [
        (first, step_flops(recipe._replace(rule=rule), batch_size))
        for first, rule in phases(recipe.rule, recipe.num_updates)
    ]


def total_flops(costs: list[tuple[int, int]], updates: int) -> int:
    """FLOPs of the first `updates` updates; `costs` is that of `phase_flops`."""
    ends = [first for first, _ in costs[1:]] + [updates]
    pairs = zip(costs, ends, strict=True)
    return sum(cost * max(0, min(updates, end) - at) for (at, cost), end in pairs)


def flops_counter(built: Built) -> Callable[[int], int]:
    """FLOPs of the first updates of a run; a step is traced at the first call."""
    recipe = built.recipe

    @cache
    def costs() -> list[tuple[int, int]]:
        if len(phases(recipe.rule, recipe.num_updates)) > 1:
            return phase_flops(recipe, built.state_like.carry.steps.shape[0])
        return [(0, flops_per_step(built))]

    return lambda updates: total_flops(costs(), updates)


def flops_per_step(built: Built) -> int:
    """`step_flops` of a run, read off the trace that the compiler uses if this can be.

    Otherwise the step is traced once more, which takes seconds. The two traces have the
    same products unless the step rematerialises or uses kernels.
    """
    recipe, like = built.recipe, built.state_like
    grows = len(phases(recipe.rule, recipe.num_updates)) > 1
    shown = plain(recipe)
    if grows or shown.rule != recipe.rule or shown.model != recipe.model:
        return step_flops(recipe, like.carry.steps.shape[0])
    return count_flops(built.train_step.trace(like, like.carry.batch).jaxpr.jaxpr)


def plain(recipe: Recipe) -> Recipe:
    """The same recipe without rematerialisation and kernels."""
    config: ModelConfig = recipe.model.config
    model = ReasoningModel(config.in_form("plain"), recipe.model.networks)
    return recipe._replace(model=model, rule=_without_remat(recipe.rule))


def _without_remat(rule: Any) -> Any:
    """The rule, and the rules that it wraps, with remat = "none"."""
    values = {f.name: getattr(rule, f.name) for f in dataclasses.fields(rule)}
    inner = {k: _without_remat(v) for k, v in values.items() if hasattr(v, "networks")}
    off = {"remat": "none"} if "remat" in values else {}
    return dataclasses.replace(rule, **off, **inner)


def check_memory(built: Built) -> None:
    """Raise ConfigError if a device cannot hold its share of the state.

    The state of the rows of an evaluation counts too; temporaries would add to it.
    """
    like, run = built.state_like, built.run
    rows = max(1.0, run.eval.batch_size / run.train.batch_size)
    needed = _share(like) + (rows - 1) * _share(like.carry)
    mine = [
        d for d in built.mesh.devices.flat if d.process_index == jax.process_index()
    ]
    limit = (mine[0].memory_stats() or {}).get("bytes_limit")
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / len(mine)
    have = limit or host
    if needed > have:
        raise ConfigError(
            f"the state of the run takes {needed / 2**30:,.1f} GiB of a device that "
            f"has {have / 2**30:,.1f} GiB; lower the sizes of config.model, or "
            "train.batch_size, eval.batch_size"
        )


def _share(tree: Any) -> int:
    """Bytes of one device's shares of all arrays."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def state_bytes(tree: Any) -> int:
    """Bytes of all leaves."""
    return sum(
        leaf.size * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree)
    )


def summary(config: Mapping[str, Any], built: Built) -> Iterator[str]:
    """One line each on devices, model and memory, for the log of a run."""
    mesh = built.mesh
    count = sum(leaf.size for leaf in jax.tree.leaves(built.state_like.params))
    state = state_bytes(built.state_like) / 2**20
    sizes = f"data {mesh.shape['data']}, fsdp {mesh.shape['fsdp']}"
    rule, layers = config["rule"]["name"], len(config["model"]["layers"])
    yield f"devices  {mesh.size} x {mesh.devices.flat[0].device_kind}: {sizes}"
    yield f"model    {rule}, {layers} sublayers: {count:,} parameters"
    yield f"memory   {state:,.1f} MiB of state, whole; --dry_run says what a step adds"


def dry_run_report(built: Built) -> dict[str, Any]:
    """Counts and estimates. The step is compiled for this backend, but nothing runs.

    Temporaries are the bytes that the compiler reserves on each device.
    """
    like = built.state_like
    memory = built.train_step.lower(like, like.carry.batch).compile().memory_analysis()
    table = like.puzzle_table
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(like.params)),
        "puzzle_table": {
            "rows": table.shape[0],
            "width": table.shape[1],
            "bytes": state_bytes(table),
        },
        "flops_per_step": flops_per_step(built),
        "memory_bytes": {
            "state": state_bytes(like),
            "carry": state_bytes(like.carry),
            "temporaries_per_device": memory.temp_size_in_bytes,
            "backend": jax.default_backend(),
            "devices": built.mesh.size,
        },
    }
