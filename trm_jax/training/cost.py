# SPDX-License-Identifier: Apache-2.0
"""What a run will cost, before it starts: parameters, FLOPs, memory."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from trm_jax.model.config import ModelConfig
from trm_jax.model.model import TRM, init_variables
from trm_jax.training.build import Built


def matmul_flops(fn: Callable[..., Any], *args: Any) -> int:
    """FLOPs of all matrix products in one call of `fn`, scans multiplied out."""
    return _count(jax.make_jaxpr(fn)(*args).jaxpr)


def _count(jaxpr: Any) -> int:
    total = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (lhs_contract, _), _ = eqn.params["dimension_numbers"]
            lhs = eqn.invars[0].aval.shape
            depth = math.prod(lhs[axis] for axis in lhs_contract)
            total += 2 * depth * eqn.outvars[0].aval.size
        elif eqn.primitive.name == "cond":  # one of the branches runs
            total += max(_count(branch.jaxpr) for branch in eqn.params["branches"])
        else:
            inner = sum(map(_count, _jaxprs(eqn.params)))
            total += inner * eqn.params.get("length", 1)
    return total


def _jaxprs(params: dict[str, Any]) -> Iterator[Any]:
    """The jaxprs among an equation's parameters, closed ones opened."""
    for value in jax.tree.leaves(list(params.values())):
        if hasattr(value, "eqns"):
            yield getattr(value, "jaxpr", value)


def step_flops(config: ModelConfig, batch_size: int) -> int:
    """Model FLOPs of one training step.

    Network calls of all h-cycles, and twice as much again for the backward pass of the
    last one, head included. Rematerialisation is not counted: it is no model FLOP.
    """
    # One form of the scan counts for all: kernels cannot be looked into.
    model = TRM(dataclasses.replace(config, ssd_implementation="chunked"))
    params, _ = jax.eval_shape(lambda: init_variables(model, jax.random.key(0)))
    shape = (batch_size, config.seq_len, config.d_model)
    hidden = jax.ShapeDtypeStruct(shape, config.compute_dtype)

    def flops(method: str) -> int:
        return matmul_flops(
            lambda p, h: model.apply({"params": p}, h, method=method), params, hidden
        )

    calls = config.l_cycles + 1
    network = flops("refine") * calls * (config.h_cycles - 1 + 3)
    return network + 3 * flops("predict")


def state_bytes(tree: Any) -> int:
    """Bytes of all leaves."""
    return sum(
        leaf.size * jnp.dtype(leaf.dtype).itemsize for leaf in jax.tree.leaves(tree)
    )


def dry_run_report(built: Built) -> dict[str, Any]:
    """Counts and estimates; compiles the step for this backend, runs nothing.

    Temporaries are what the compiler reserves, per device.
    """
    like = built.state_like
    config = built.model.config
    rows = like.carry.steps.shape[0]
    memory = built.train_step.lower(like, like.carry.batch).compile().memory_analysis()
    table = like.puzzle_table
    return {
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(like.params)),
        "puzzle_table": {
            "rows": table.shape[0],
            "width": table.shape[1],
            "bytes": state_bytes(table),
        },
        "flops_per_step": step_flops(config, rows),
        "memory_bytes": {
            "state": state_bytes(like),
            "carry": state_bytes(like.carry),
            "temporaries_per_device": memory.temp_size_in_bytes,
            "backend": jax.default_backend(),
            "devices": built.mesh.size,
        },
    }
