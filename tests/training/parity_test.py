# SPDX-License-Identifier: Apache-2.0
"""TRM and HRM against the published code's own numbers (tests/golden/README.md)."""

import math
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers import golden_trm
from trm_jax.evaluation.evaluate import make_eval_step
from trm_jax.model.model import init_params
from trm_jax.rules.latents import Latents
from trm_jax.training.sharding import make_mesh
from trm_jax.training.step import loss_and_grads
from trm_jax.training.supervision import init_carry, refill, row_keys

pytestmark = pytest.mark.optimized

# The golden files are float32. Round-off grows with every step of the recursion, most
# of all in MLP-t. Steps that follow one another are therefore computed in float64 here,
# in training and in evaluations: then only the round-off of the file counts, and every
# processor agrees.
THREADED = {
    "trm_attn": 1e-4,
    "trm_learned_pos": 1e-4,
    "trm_mlp_t": 5e-3,
    "trm_mamba2_attn": 5e-3,
    "trm_mamba2_mlp_t": 5e-3,
    "hrm_attn": 1e-4,
    "trm_mamba1": 1e-4,
}
# An evaluation has as many steps, except that of HRM, which has eight.
EVALUATED_FLOAT64 = THREADED | {"hrm_attn": 5e-3}
EVALUATED = THREADED | {"hrm_attn": 2e-2, "trm_mamba1": 5e-4}  # in float32
FROM_GOLDEN_STATE = 1e-4
NAMES = {
    "accuracy": "cell_accuracy",
    "exact_accuracy": "exact_accuracy",
    "q_halt_accuracy": "halt_accuracy",
    "steps": "num_steps",
    "lm_loss": "cell_loss",
    "q_halt_loss": "halt_loss",
    "q_continue_loss": "continue_loss",
}


# The networks that differ most; `make slow` compares all networks.
COMPARED_HERE = {"trm_attn", "trm_mlp_t", "trm_mamba2_attn", "hrm_attn"}


def some_slow(here):
    """All networks; the ones that are not in `here` are marked as slow."""
    slow = [pytest.mark.slow]
    return [pytest.param(n, marks=[] if n in here else slow) for n in THREADED]


@pytest.fixture(params=some_slow(COMPARED_HERE))
def name(request):
    return request.param


def load(name, **kwargs):
    """The golden file, its compiled step without an update, and its first carry."""
    golden = golden_trm.load(name, **kwargs)
    recipe, rows = golden.recipe, len(golden.batches[0].weight)
    golden.step = jax.jit(partial(loss_and_grads, recipe, rows))
    weights = golden.params, golden.constants
    golden.carry = init_carry(recipe.rule, recipe.model, weights, rows)
    return golden


@pytest.fixture
def golden(name):
    return load(name)


def run_step(golden, carry, batch):
    """One training step without an update: (grads, vector grads), carry, metrics."""
    carry = refill(carry, batch)
    size = len(batch.weight)
    vectors = golden.table[carry.batch.puzzle_id]
    never_wait = jnp.zeros(size, jnp.int32)
    weights = golden.params, golden.constants, jnp.int32(0)
    keys = row_keys(jax.random.key(0), jnp.arange(size))
    sums, rows = golden.step(weights, vectors, carry, keys, never_wait)
    (grads, metrics), (vector_grads, carry) = sums, rows
    return (grads, vector_grads), carry, metrics


def close(found, expected, atol, name=""):
    """Equal to within `atol`, absolute for values below 1 and relative above."""
    np.testing.assert_allclose(found, expected, rtol=atol, atol=atol, err_msg=name)


def heads(logits, q):
    """What the heads say, by the names of the golden files."""
    halting = {"q_halt_logits": q[..., 0], "q_continue_logits": q[..., 1]}
    return {"logits": logits} | halting


def assert_step(golden, i, result, atol):
    """Compare a step's carry, halting, metrics, loss and (where stored) gradients."""
    (grads, vector_grads), carry, metrics = result
    expected = {
        k.removeprefix(f"train{i}/"): golden.file[k]
        for k in golden.file
        if k.startswith(f"train{i}/")
    }
    close(carry.state.y, expected["z_H"], atol)
    close(carry.state.z, expected["z_L"], atol)
    np.testing.assert_array_equal(carry.steps, expected["steps"])
    np.testing.assert_array_equal(carry.halted, expected["halted"])
    assert metrics["exact_accuracy"][1] == expected["metrics/count"]
    for theirs, ours in NAMES.items():
        if f"metrics/{theirs}" in expected:
            close(metrics[ours][0], expected[f"metrics/{theirs}"], atol, ours)
    close(metrics["loss"][0], expected["loss"], atol)
    if "grads/puzzle_emb.local_ids" in expected:
        expected_grads, expected_vectors, ids = golden.grads(i)
        np.testing.assert_array_equal(carry.batch.puzzle_id, ids)
        chex.assert_trees_all_equal_structs(grads, expected_grads)
        chex.assert_trees_all_close(grads, expected_grads, rtol=atol, atol=atol)
        close(vector_grads, expected_vectors, atol)


@pytest.mark.parametrize("name", some_slow({"trm_mlp_t", "hrm_attn"}))
def test_threaded_training_steps_match(name):
    with jax.enable_x64(True):
        golden = load(name, dtype="float64")
        carry = golden.carry
        for i, batch in enumerate(golden.batches):
            result = run_step(golden, carry, batch)
            assert_step(golden, i, result, THREADED[name])
            carry = result[1]


def test_each_training_step_matches_from_the_golden_state(golden):
    carry = golden.carry
    for i, batch in enumerate(golden.batches):
        result = run_step(golden, carry, batch)
        assert_step(golden, i, result, FROM_GOLDEN_STATE)
        names = ("z_H", "z_L", "steps", "halted")
        y, z, *rest = (jnp.asarray(golden.file[f"train{i}/{k}"]) for k in names)
        steps, halted = rest
        state = Latents(y, z)
        carry = result[1]._replace(state=state, steps=steps, halted=halted)


def test_logits_match(golden):
    predict = jax.jit(partial(golden.recipe.model.apply, method="predict"))
    for i in range(len(golden.batches)):
        y = jnp.asarray(golden.file[f"train{i}/z_H"])
        for key, value in heads(*predict({"params": golden.params}, y)).items():
            if (stored := f"train{i}/{key}") in golden.file:
                close(value, golden.file[stored], FROM_GOLDEN_STATE, stored)


@pytest.mark.parametrize("name", some_slow(COMPARED_HERE))
def test_evaluation_matches(name):
    with jax.enable_x64(True):
        assert_evaluation(load(name, dtype="float64"), EVALUATED_FLOAT64[name])


def assert_evaluation(golden, atol):
    """Compare predictions, halting logits and metrics of a whole evaluation."""
    steps = int(golden.file["eval/num_steps"])
    eval_step = make_eval_step(golden.recipe, make_mesh(1), num_steps=steps)
    batch = golden.batches[golden.file.get("eval/batch", 0)]
    weights = golden.params, golden.constants, golden.table
    result = eval_step(weights, batch, jnp.arange(len(batch.weight)))
    np.testing.assert_array_equal(
        result.predictions, golden.file["eval/preds_per_step"][-1]
    )
    labels, mask = batch.labels, batch.label_mask
    for step, expected in enumerate(golden.file["eval/preds_per_step"]):
        right = (mask & (expected == labels)).sum(-1)
        np.testing.assert_allclose(
            result.cells_right[step], right / np.maximum(mask.sum(-1), 1), rtol=1e-6
        )
    q = golden.file["eval/q_halt_logits_per_step"]
    close(result.q_halt[0], q[0], 1e-4)
    close(result.q_halt, q, atol)
    metrics = {
        k.removeprefix("eval/metrics/"): golden.file[k]
        for k in golden.file
        if k.startswith("eval/metrics/")
    }
    assert result.has_labels.sum() == metrics["count"]
    cells_right = result.cells_right[-1][result.has_labels].sum()
    close(cells_right, metrics["accuracy"], atol)
    assert result.all_right[-1][result.has_labels].sum() == metrics["exact_accuracy"]
    close(result.cell_loss[-1].sum(), metrics["lm_loss"], atol)


def test_parameter_count_matches(golden):
    init = partial(init_params, golden.recipe.model, None)
    params = jax.eval_shape(init, jax.random.key(0))
    count = sum(math.prod(p.shape) for p in jax.tree.leaves(params))
    if "num_parameters" in golden.file:
        assert count == golden.file["num_parameters"]
    chex.assert_trees_all_equal_shapes(params, golden.params)
