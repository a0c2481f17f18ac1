# SPDX-License-Identifier: Apache-2.0
"""The SSD operator under JAX's transformations, and the arguments that it refuses."""

import inspect
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.ops.cases import EVERYWHERE, FORMS, NOT_OPTIMISED, assert_close, draw
from trm_jax.ops.ssd.ssd import ssd

jit = partial(jax.jit, compiler_options=NOT_OPTIMISED)
CHECKPOINTS = {
    "checkpoint": jax.checkpoint,
    "dots_saveable": partial(
        jax.checkpoint, policy=jax.checkpoint_policies.dots_saveable
    ),
}
IN_A_BATCH = {"x": 0, "dt": 0, "A": None, "B": 0, "C": 0, "initial_state": None}


def step_of(implementation):
    """A function that applies the operator to x and returns the next x, for loops."""

    def step(inputs):
        y, last = ssd(**inputs, chunk_size=16, implementation=implementation)
        return jnp.tanh(y) + inputs["x"] + 0.1 * last.mean((-1, -2))[:, None, :, None]

    return step


# None is left out: on a CPU it equals "chunked" to the bit (ssd_test.py).
SLOW = ("recurrent", "batched")
IN_STEPS = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
    for name in EVERYWHERE
]


@pytest.fixture(params=IN_STEPS)
def step(request):
    return step_of(request.param)


def three_times(step):
    """Apply the step in a scan, as the recursion applies its network."""

    def fn(inputs):
        def body(x, _):
            return step(inputs | {"x": x}), None

        return jax.lax.scan(body, inputs["x"], length=3)[0]

    return fn


def three_times_unrolled(step):
    def fn(inputs):
        for _ in range(3):
            inputs = inputs | {"x": step(inputs)}
        return inputs["x"]

    return fn


def stacked(inputs):
    """The inputs, with two batches of each argument that IN_A_BATCH maps over."""
    other = draw(21, l=20, h=4, g=2)
    return {
        k: v if axis is None else jnp.stack([v, other[k]])
        for k, axis in IN_A_BATCH.items()
        for v in [inputs[k]]
    }


def mapped_by_hand(step):
    def fn(inputs):
        def row(i):
            batch = {k: v if IN_A_BATCH[k] is None else v[i] for k, v in inputs.items()}
            return step(batch)

        return jnp.stack([row(0), row(1)])

    return fn


def mapped(step):
    return jax.vmap(step, in_axes=(IN_A_BATCH,))


def value_and_grads(fn, inputs):
    """The sum of sin(fn(inputs)), and its gradients."""
    value, grads = jax.value_and_grad(lambda i: jnp.sin(fn(i)).sum())(inputs)
    return {"value": value} | {f"d{name}": grad for name, grad in grads.items()}


INPUTS = draw(20, l=20, h=4, g=2)
STACKED = stacked(INPUTS)
PLAIN = step_of("recurrent")  # all forms are compared with this one
BY_HAND = {
    "once": (PLAIN, INPUTS),
    "three times": (three_times_unrolled(PLAIN), INPUTS),
    "mapped": (mapped_by_hand(PLAIN), STACKED),
    "mapped, three times": (three_times_unrolled(mapped_by_hand(PLAIN)), STACKED),
}


@cache
def reference(which):
    fn, inputs = BY_HAND[which]
    return jit(partial(value_and_grads, fn))(inputs)


@pytest.mark.slow
def test_outside_jit_nothing_changes():
    found = value_and_grads(step_of(None), INPUTS)
    assert_close(found, reference("once"), 1e-5)


@pytest.mark.parametrize("checkpoint", CHECKPOINTS)
def test_in_a_scan_and_recomputed_nothing_changes(step, checkpoint):
    looped = three_times(CHECKPOINTS[checkpoint](step))
    found = jit(partial(value_and_grads, looped))(INPUTS)
    assert_close(found, reference("three times"), 1e-4)


def test_under_vmap_with_shared_arguments_nothing_changes(step):
    found = jit(partial(value_and_grads, mapped(step)))(STACKED)
    assert_close(found, reference("mapped"), 1e-5)


def test_vmap_in_checkpoint_in_scan_changes_nothing(step):
    looped = three_times(jax.checkpoint(mapped(step)))
    found = jit(partial(value_and_grads, looped))(STACKED)
    assert_close(found, reference("mapped, three times"), 1e-4)


@pytest.mark.parametrize("implementation", ["pallas", None])
def test_the_backward_pass_keeps_the_inputs_and_nothing_else(implementation):
    def fn(*args):
        return ssd(*args, chunk_size=16, implementation=implementation)

    args = [INPUTS[k] for k in ("x", "dt", "A", "B", "C")]
    kept = jax.tree.leaves(jax.vjp(fn, *args)[1])
    state = INPUTS["initial_state"]
    assert sum(v.size for v in kept) <= sum(v.size for v in args) + state.size


@pytest.mark.parametrize("name", ["dt", "A", "B", "C", "initial_state"])
def test_a_wrong_shape_is_named(name):
    wrong = INPUTS | {name: jnp.repeat(INPUTS[name], 3, axis=-1)}
    unchecked = inspect.unwrap(ssd)  # users do not have the tests' type checker
    with pytest.raises(ValueError, match=r"\w+ has shape .*; expected .*") as error:
        unchecked(**wrong)
    # Only B and C have the axis n. The size in B counts, so C is blamed for a wrong B.
    assert str(error.value).startswith("C" if name == "B" else name)


def test_groups_must_divide_the_heads():
    inputs = draw(0, l=5, h=4, g=3)
    with pytest.raises(ValueError, match="4 heads in 3 groups"):
        ssd(**inputs)


def test_a_length_and_a_chunk_of_at_least_one_are_asked_for():
    with pytest.raises(ValueError, match="length 0"):
        ssd(**draw(0, l=0))
    with pytest.raises(ValueError, match="chunk_size 0"):
        ssd(**INPUTS, chunk_size=0)


def test_an_unknown_implementation_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'magic'; expected .*recurrent.*pallas"):
        ssd(**INPUTS, implementation="magic")


@pytest.mark.parametrize(
    ("sizes", "chunk_size"), [({"p": 24}, 16), ({"n": 12}, 16), ({}, 24)]
)
def test_kernels_take_powers_of_two_and_the_rest_goes_elsewhere(sizes, chunk_size):
    inputs = draw(0, l=20, **sizes)
    with pytest.raises(ValueError, match=r"powers of two.*24|powers of two.*12"):
        ssd(**inputs, chunk_size=chunk_size, implementation="pallas")
    found, expected = (
        jit(partial(ssd, chunk_size=chunk_size, implementation=name))(**inputs)
        for name in (None, "recurrent")
    )
    np.testing.assert_allclose(found[0], expected[0], atol=1e-4)


@pytest.mark.parametrize("implementation", FORMS)
def test_float32_is_the_same_where_64_bit_types_are_on(implementation):
    inputs, step = draw(0, l=20), step_of(implementation)

    def gradients():
        return jit(jax.grad(lambda inputs: step(inputs).sum()))(inputs)

    expected = gradients()
    with jax.enable_x64(True):
        found = gradients()
    for name, gradient in found.items():
        assert gradient.dtype == jnp.float32
        np.testing.assert_allclose(gradient, expected[name], rtol=1e-4, atol=1e-4)
