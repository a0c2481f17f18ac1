# SPDX-License-Identifier: Apache-2.0
"""The scan of Mamba-1 against published numbers and its token-by-token reference."""

import inspect
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.golden_trm import GOLDEN
from trm_jax.ops.selective_scan import FORMS, IMPLEMENTATIONS, selective_scan

CASES = ("plain", "init", "no_D", "strong_decay", "single_token")
NAMES = {"init_state": "initial_state"}


@cache
def golden():
    return dict(np.load(GOLDEN / "selective_scan.npz"))


def case(name, dtype):
    """Arguments and D, cotangents, and expectations of a golden case."""
    found = {
        key.removeprefix(f"{name}/"): jnp.asarray(value, dtype)
        for key, value in golden().items()
        if key.startswith(f"{name}/")
    }
    cotangents = found.pop("cot_y"), found.pop("cot_final_state")
    inputs = {
        NAMES.get(key, key): found.pop(key)
        for key in ("u", "delta", "A", "B", "C", "D", "init_state")
        if key in found
    }
    return inputs, cotangents, found


def results(inputs, cotangents, **how):
    def fn(inputs):
        skip = inputs["u"] * inputs["D"][None, None] if "D" in inputs else 0
        rest = {name: value for name, value in inputs.items() if name != "D"}
        y, last = selective_scan(**rest, **how)
        return y + skip, last

    (y, last), vjp = jax.vjp(fn, inputs)
    grads = {f"d{name}": grad for name, grad in vjp(cotangents)[0].items()}
    grads |= {
        f"d{theirs}": grads.pop(f"d{ours}", None) for theirs, ours in NAMES.items()
    }
    return {"y": y, "final_state": last} | {
        k: v for k, v in grads.items() if v is not None
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "implementation", [pytest.param(None, marks=pytest.mark.slow), *IMPLEMENTATIONS]
)
@pytest.mark.parametrize("name", CASES)
def test_published_values_and_gradients_come_out(name, implementation, dtype):
    tolerance = {"float32": 1e-6, "float64": 1e-12}[dtype]
    with jax.enable_x64(dtype == "float64"):
        inputs, cotangents, expected = case(name, dtype)
        run = jax.jit(partial(results, implementation=implementation, chunk_size=5))
        found = run(inputs, cotangents)
        assert set(found) == set(expected)
        for key, value in expected.items():
            assert np.isfinite(found[key]).all(), key
            size = max(1.0, float(jnp.abs(value).max()))
            error = float(jnp.abs(found[key] - value).max()) / size
            assert error <= tolerance, f"{key} is off by {error:.1e}"


def draw(length, dtype="float32"):
    rng = np.random.default_rng(length)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), dtype)

    return {
        "u": normal(2, length, 6),
        "delta": jnp.asarray(rng.uniform(0, 1, (2, length, 6)), dtype),
        "A": jnp.asarray(-rng.uniform(0.1, 3, (6, 4)), dtype),
        "B": normal(2, length, 4),
        "C": normal(2, length, 4),
        "initial_state": normal(2, 6, 4),
    }


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("length", [1, 7, 16, 33])
@pytest.mark.parametrize("chunk_size", [1, 16])
def test_chunks_of_any_length_change_only_rounding(form, length, chunk_size):
    with jax.enable_x64(True):
        inputs = draw(length, "float64")
        rng = np.random.default_rng(1)
        cotangents = rng.normal(size=(2, length, 6)), rng.normal(size=(2, 6, 4))
        cotangents = jax.tree.map(jnp.asarray, cotangents)
        how = {"implementation": form, "chunk_size": chunk_size}
        expected = results(inputs, cotangents, implementation="recurrent")
        found = jax.jit(partial(results, **how))(inputs, cotangents)
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-10, atol=1e-10)


def test_a_sequence_may_be_cut_anywhere():
    inputs = draw(20)
    whole, last = selective_scan(**inputs)
    cut = ("u", "delta", "B", "C")
    first = inputs | {name: inputs[name][:, :9] for name in cut}
    y, state = selective_scan(**first)
    second = inputs | {name: inputs[name][:, 9:] for name in cut}
    more, end = selective_scan(**second | {"initial_state": state})
    np.testing.assert_allclose(jnp.concatenate([y, more], 1), whole, atol=1e-5)
    np.testing.assert_allclose(end, last, atol=1e-5)


def test_bfloat16_inputs_are_scanned_in_float32():
    inputs = {name: v.astype(jnp.bfloat16) for name, v in draw(40).items()}
    wide = {name: v.astype(jnp.float32) for name, v in inputs.items()}
    y, last = selective_scan(**inputs)
    expected, state = selective_scan(**wide)
    assert y.dtype == jnp.bfloat16
    assert last.dtype == jnp.float32
    np.testing.assert_array_equal(y, expected.astype(jnp.bfloat16))
    np.testing.assert_array_equal(last, state)


def temporaries(form, chunk_size, length=256):
    shapes = {"u": (4, length, 64), "delta": (4, length, 64), "A": (64, 16)}
    shapes |= {"B": (4, length, 16), "C": (4, length, 16)}
    args = {name: jax.ShapeDtypeStruct(s, jnp.float32) for name, s in shapes.items()}

    def loss(args):
        how = {"implementation": form, "chunk_size": chunk_size}
        return (selective_scan(**args, **how)[0] ** 2).sum()

    compiled = jax.jit(jax.grad(loss)).lower(args).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.optimized
@pytest.mark.parametrize("form", FORMS)
def test_memory_grows_with_the_chunk_and_not_with_all_states(form):
    small, medium, large = (temporaries(form, q) for q in (16, 64, 256))
    # 192 more tokens cost four times what 48 more cost, less the states at the starts.
    assert 3 < (large - medium) / (medium - small) < 4.5
    states = 4 * 256 * 64 * 16 * 4  # bytes of the states of all tokens
    assert small < 1.5 * states < large


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"B": jnp.zeros((2, 5, 3))}, r"B has shape \(2, 5, 3\); expected \(2, 5, 4\)"),
        ({"A": jnp.zeros((5, 4))}, r"A has shape \(5, 4\); expected \(6, 4\)"),
        ({"chunk_size": 0}, "length 5, chunk_size 0; expected 1 or more"),
        ({"implementation": "fast"}, "'fast'; expected None or recurrent, loop, assoc"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    unchecked = inspect.unwrap(selective_scan)  # without the tests' type checker
    with pytest.raises(ValueError, match=message):
        unchecked(**draw(5) | changes)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_scan_associatively(platform):
    def lowered(**how):
        fn = jax.jit(lambda args: selective_scan(**args, chunk_size=16, **how))
        return fn.trace(draw(32)).lower(lowering_platforms=(platform,)).as_text()

    ours = lowered()
    assert ours.count("stablehlo.while") == 1  # over chunks; the loop has another
    assert lowered(implementation="loop").count("stablehlo.while") == 2
