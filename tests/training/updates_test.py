# SPDX-License-Identifier: Apache-2.0
"""24 updates of the published training code, in float64 (tests/golden/README.md)."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import golden_trm
from trm_jax.model.sublayers import attention
from trm_jax.training.build import build

EXACT = 1e-12
FLOAT32 = 1e-6  # metrics are added up in float32
OPTIM = {"lr", "weight_decay", "table_lr", "table_weight_decay"}
OPTIM |= {"warmup_steps", "min_ratio", "ema_decay"}
NAMES = {
    "lm_loss": "cell_loss",
    "q_halt_loss": "halt_loss",
    "accuracy": "cell_accuracy",
    "exact_accuracy": "exact_accuracy",
    "q_halt_accuracy": "halt_accuracy",
    "steps": "num_steps",
}


def wide_attention(q, k, v):
    """Attention whose softmax is float64, unlike in jax.nn."""
    scores = jnp.einsum("blhk,bmhk->bhlm", q, k) / np.sqrt(q.shape[-1])
    return jnp.einsum("bhlm,bmhk->blhk", jax.nn.softmax(scores), v)


def widened(tree):
    """Floating-point leaves in float64, counters in int64."""

    def wide(a):
        is_float = jnp.issubdtype(a.dtype, jnp.floating)
        return a.astype(jnp.float64 if is_float else jnp.int64)

    return jax.tree.map(wide, tree)


def begin(name):
    """The file, its run, and the state before the first update."""
    file = np.load(golden_trm.GOLDEN / f"train24_{name}.npz")
    c = golden_trm.official_config(file)
    config, sizes = golden_trm.config_and_sizes(c, "float64", "auto")
    optim = c["optim"]
    config["optim"].update({key: optim[key] for key in OPTIM})
    config["optim"]["adam_atan2"].update(b1=optim["b1"], b2=optim["b2"])
    config["train"]["steps"] = optim["total_steps"]
    built = build(config, sizes)
    params, constants, table = golden_trm.split_weights(file, c)
    state = built.init()
    state = state._replace(
        step=widened(state.step),
        params=params,
        ema_params=jax.tree.map(jnp.copy, params),
        constants=constants,
        opt_state=widened(built.recipe.optim.optimizer.init(params)),
        puzzle_table=table,
    )
    batch = state.carry.batch
    wide = batch._replace(weight=widened(batch.weight))
    return file, c, built, state._replace(carry=state.carry._replace(batch=wide))


SLOW = [
    pytest.param(name, marks=pytest.mark.slow)
    for name in ("mlp_t", "mamba2_mlp_t", "mamba2_attn")
]


@pytest.mark.parametrize("name", ["attn", *SLOW])
def test_24_updates_are_the_published_ones(name, monkeypatch):
    with jax.enable_x64(True):
        file, c, built, state = begin(name)
        monkeypatch.setattr(jax.nn, "dot_product_attention", wide_attention)
        if "rope/cos" in file:  # published tables are rounded differently
            tables = [jnp.asarray(file[f"rope/{k}"])[:, None] for k in ("cos", "sin")]
            tables = [table.astype(jnp.float64) for table in tables]
            monkeypatch.setattr(attention, "rotary_tables", lambda *_: tables)
        names = ("inputs", "labels", "puzzle_identifiers")
        for u in range(24):
            offered = {k: file[f"batches/{k}"][u] for k in names}
            batch = jax.tree.map(jnp.asarray, golden_trm.batch_of(offered))
            batch = batch._replace(weight=widened(batch.weight))
            state = built.train_step(state, batch)
            assert_carry_and_metrics(file, u, state)
            if u + 1 in (1, 8, 24):
                assert_weights(file, c, u + 1, state)
        assert state.params["embed_tokens"].dtype == jnp.float64


def assert_carry_and_metrics(file, u, state):
    carry, labels = state.carry, file["carry/labels"][u]
    np.testing.assert_array_equal(carry.steps, file["steps"][u])
    np.testing.assert_array_equal(carry.halted, file["halted"][u])
    np.testing.assert_array_equal(carry.batch.inputs, file["carry/inputs"][u])
    np.testing.assert_array_equal(carry.batch.label_mask, labels != -100)
    sums = {name: total for name, (total, _) in state.metrics.items()}
    close = partial(np.testing.assert_allclose, rtol=FLOAT32, atol=FLOAT32)
    close(sums["loss"], file["loss"][u])
    close(sums["grad_norm"], file["grad_norm"][u])
    assert state.metrics["exact_accuracy"][1] == file["metrics/count"][u]
    for theirs, ours in NAMES.items():
        close(sums[ours], file[f"metrics/{theirs}"][u], err_msg=ours)


def assert_weights(file, c, update, state):
    def stored(kind):
        prefix = f"{kind}{update}/"
        found = {k.removeprefix(prefix): file[k] for k in file if k.startswith(prefix)}
        table = found.pop("inner.puzzle_emb.weights", None)
        return golden_trm.to_params(found, golden_trm.sublayers_per_block(c)), table

    close = partial(chex.assert_trees_all_close, rtol=0, atol=EXACT)
    params, table = stored("after")
    close(state.params, params)
    close(state.puzzle_table, table)
    close(state.ema_params, stored("ema")[0])
