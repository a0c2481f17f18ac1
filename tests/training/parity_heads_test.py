# SPDX-License-Identifier: Apache-2.0
"""What the heads say in the golden files: logits, halting logits, HRM's targets.

All is computed in float64, as parity_test.py explains.
"""

import jax
import jax.numpy as jnp
import pytest

from tests.training.parity_test import (
    EVALUATED_FLOAT64,
    THREADED,
    close,
    heads,
    load,
    some_slow,
)
from trm_jax.evaluation.evaluate import stepper
from trm_jax.training.supervision import bind, refill, row_keys, supervision_step

pytestmark = pytest.mark.optimized

TRAINED = THREADED | {"hrm_attn": 1e-5}


@pytest.fixture(params=some_slow({"hrm_attn"}))
def name(request):
    return request.param


def heads_of(name, logits, q):
    """What the files hold; only HRM trains the continue logit."""
    found = heads(logits, q)
    if name != "hrm_attn":
        del found["q_continue_logits"]
    return found


def training_step(golden):
    """The compiled training step from a refilled carry: next carry, rule's outputs."""
    recipe = golden.recipe
    most = recipe.halting.max_supervision_steps

    @jax.jit
    def step(carry):
        size = len(carry.steps)
        vectors = golden.table[carry.batch.puzzle_id]
        weights = golden.params, golden.constants, vectors
        model = bind(recipe.rule, recipe.model, *weights)
        keys = row_keys(jax.random.key(0), jnp.arange(size))
        args = recipe.rule, model, carry, keys, jnp.zeros(size, jnp.int32), jnp.int32(0)
        return supervision_step(*args, max_steps=most, training=True)

    return step


def test_heads_of_threaded_training_steps_match(name):
    with jax.enable_x64(True):
        golden = load(name, dtype="float64")
        step, carry = training_step(golden), golden.carry
        for i, batch in enumerate(golden.batches):
            carry, outputs = step(refill(carry, batch))
            found = heads_of(name, outputs.logits, outputs.q)
            if name == "hrm_attn":
                found["target_q_continue"] = outputs.q_target
            for key, value in found.items():
                close(value, golden.file[f"train{i}/{key}"], TRAINED[name], key)


def test_heads_and_latents_of_an_evaluation_match(name):
    with jax.enable_x64(True):
        golden = load(name, dtype="float64")
        steps = int(golden.file["eval/num_steps"])
        batch = golden.batches[golden.file.get("eval/batch", 0)]
        weights = golden.params, golden.constants, golden.table

        @jax.jit
        def evaluated(weights, batch):
            numbers = jnp.arange(len(batch.weight))
            carry, step = stepper(golden.recipe, weights, batch, numbers, steps, seed=0)
            carry, outputs = jax.lax.scan(lambda c, _: step(c), carry, length=steps)
            return carry.state, outputs.logits, outputs.q

        state, logits, q = evaluated(weights, batch)
        of_steps = heads_of(name, logits, q)
        if name != "hrm_attn":  # of the logits and latents, its file has the most
            del of_steps["logits"]
            found = {"final_logits": logits[-1]}
        else:
            found = {"z_H": state.y, "z_L": state.z}
        found |= {f"{key}_per_step": value for key, value in of_steps.items()}
        for key, value in found.items():
            close(value, golden.file[f"eval/{key}"], EVALUATED_FLOAT64[name], key)
