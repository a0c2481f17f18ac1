# SPDX-License-Identifier: Apache-2.0
"""What one device does in a training step: FLOPs, bytes, products and exchanges."""

import copy
from typing import Any, NamedTuple, cast

import jax

from trm_jax.model.model import init_params
from trm_jax.training.build import make_recipe
from trm_jax.training.config import read_run
from trm_jax.training.cost import count_flops, plain, step_flops
from trm_jax.training.sharding import TABLE_UNIT


class Work(NamedTuple):
    """What one device does in a step."""

    rows: int
    flops: float
    nbytes: float
    products: int
    summed: float  # bytes of the arrays that are summed over all devices
    gathered: float  # bytes of the arrays that every device receives whole
    dtype: str
    seconds: float = 0.0  # least time of the kernels of the compiled step; 0: unknown


def products(jaxpr: Any) -> tuple[int, int]:
    """(number, bytes of operands and results) of matrix products and kernels."""
    number = nbytes = 0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name in ("dot_general", "pallas_call"):
            arrays = (*eqn.invars, *eqn.outvars)
            number += 1
            nbytes += sum(v.aval.size * v.aval.dtype.itemsize for v in arrays)
            continue
        inner = [
            products(getattr(value, "jaxpr", value))
            for value in jax.tree.leaves(list(eqn.params.values()))
            if hasattr(value, "eqns")
        ]
        if eqn.primitive.name == "cond":
            inner = [max(inner)]  # one of the branches runs
        for n, size in inner:
            number += n * eqn.params.get("length", 1)
            nbytes += size * eqn.params.get("length", 1)
    return number, nbytes


def work_of(config: Any, sizes: dict[str, Any], devices: int, ssd: str) -> Work:
    """What each of `devices` does in a step of the config."""
    config = copy.deepcopy(config)
    if any(name.startswith("mamba2") for name in config.model.layers):
        config.model.mamba2.implementation = ssd
    recipe = make_recipe(config.to_dict(), sizes, read_run(config.to_dict()))
    model, rule = recipe.model, cast(Any, recipe.rule)
    c = model.config
    batch = config.train.batch_size
    rows = batch // devices
    params = jax.eval_shape(lambda: init_params(model, None, jax.random.key(0)))
    hidden = jax.ShapeDtypeStruct((rows, c.seq_len, c.d_model), c.compute_dtype)

    def refine(model: Any) -> Any:
        def call(p: Any, h: Any) -> Any:
            return model.apply({"params": p}, h, model.networks[0], method="refine")

        return jax.make_jaxpr(call)(params, hidden).jaxpr

    number, nbytes = products(refine(model))
    # The step in forward passes of the network; a backward pass costs two.
    flops = step_flops(recipe, rows)
    passes = flops / count_flops(refine(plain(recipe).model))
    chains = 1  # computed side by side
    while hasattr(rule, "inner"):
        chains, rule = chains * rule.settings.chains, rule.inner
    with_gradients = (passes - chains * len(rule.calls())) / 2
    again = max(0.0, with_gradients) if rule.remat == "full" else 0.0
    weights = 4 * sum(leaf.size for leaf in jax.tree.leaves(params))
    vectors = 4 * batch * c.puzzle_width
    look_ups = 2 if c.num_puzzles >= TABLE_UNIT else 0  # for step and update
    return Work(
        rows=rows,
        flops=flops * (1 + again / passes),
        # Weights, their average and two moments are read and written, gradients read.
        nbytes=nbytes * (passes + again) + 9 * weights,
        products=round(number * (passes + again) / chains),
        summed=(weights + look_ups * vectors) * (devices > 1),
        gathered=vectors * (devices > 1),  # gradients of puzzle vectors
        dtype=config.model.dtype,
    )
