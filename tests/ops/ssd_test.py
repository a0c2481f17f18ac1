# SPDX-License-Identifier: Apache-2.0
"""The same tests for every form of the SSD operator."""

import re
from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.helpers.golden_trm import GOLDEN
from tests.ops.cases import (
    ARGUMENTS,
    NOT_OPTIMISED,
    assert_close,
    cotangents,
    draw,
    run,
)
from trm_jax.ops.ssd.ssd import ssd

FLOAT32 = 1e-5  # relative to the largest value
FLOAT64 = 1e-12
# bfloat16 has 8 significant bits: one rounding changes a value by up to 4e-3 of it.
# States and the gradients of dt and A are float32, but come from rounded products.
BFLOAT16 = {"y": 8e-3, "dx": 8e-3, "dB": 8e-3, "dC": 8e-3, "last": 4e-3}
BFLOAT16 |= {"dinitial_state": 4e-3, "ddt": 5e-3, "dA": 1e-3}


SHAPES = {
    "one_token": {"l": 1, "g": 2},
    "less_than_a_chunk": {"l": 11, "h": 1, "b": 1},
    "several_chunks": {"l": 48, "p": 32, "n": 4},
    "ragged": {"l": 37, "h": 4, "g": 2},
    "ragged_by_one": {"l": 33, "h": 3, "g": 3},
    "no_state": {"l": 37, "state": False},
    "strong_decay": {"l": 37, "h": 4, "g": 2, "decay": 300.0},
    "no_decay": {"l": 37, "h": 4, "g": 2, "decay": 0.0},
}


def by_loops(x, dt, A, B, C, initial_state):
    """y and the last state in numpy and float64, one token of one head at a time."""
    x, dt, A, B, C, state = (np.array(v, "f8") for v in (x, dt, A, B, C, initial_state))
    y, per_group = np.zeros_like(x), x.shape[2] // B.shape[2]
    for i, t, j in np.ndindex(*x.shape[:3]):
        group = j // per_group
        state[i, j] *= np.exp(dt[i, t, j] * A[j])
        state[i, j] += dt[i, t, j] * np.outer(x[i, t, j], B[i, t, group])
        y[i, t, j] = state[i, j] @ C[i, t, group]
    return {"y": y, "last": state}


def golden(name):
    """(inputs, cotangents, expected) of a golden file, as `run` takes and returns."""
    file = np.load(GOLDEN / f"{name}.npz")
    inputs = {k: jnp.asarray(file[k]) for k in ARGUMENTS if k in file}
    expected = {f"d{k}": file[f"d{k}"] for k in inputs}
    expected |= {"y": file["y"], "last": file["final_state"]}
    cots = jnp.asarray(file["cot_y"]), jnp.asarray(file["cot_final_state"])
    return inputs, cots, expected


class SsdCase:
    """Tests of one implementation; the subclasses below name it."""

    implementation = None

    def run(self, *args, **kwargs):
        return run(*args, implementation=self.implementation, **kwargs)

    @pytest.mark.parametrize(
        "name", ["ssd_small", "ssd_groups_ragged_init", "ssd_strong_decay"]
    )
    def test_the_published_values_and_gradients_come_out(self, name):
        inputs, cots, expected = golden(name)
        assert_close(self.run(inputs, cots, chunk_size=8), expected, FLOAT32)

    def test_three_tokens_worked_by_hand_come_out(self):
        # A is -ln 2, so exp(dt A) = 1/2, 1/4, 1/2. The state goes (4, 8) -> (3, 4)
        # -> (6.75, 7) -> (3.375, 7.5).
        inputs = {
            "x": jnp.array([1.0, 3.0, 2.0]).reshape(1, 3, 1, 1),
            "dt": jnp.array([1.0, 2.0, 1.0]).reshape(1, 3, 1),
            "A": -jnp.log(jnp.full(1, 2.0)),
            "B": jnp.array([[1.0, 0], [1, 1], [0, 2]]).reshape(1, 3, 1, 2),
            "C": jnp.array([[1.0, 1], [2, 1], [1, 1]]).reshape(1, 3, 1, 2),
            "initial_state": jnp.array([4.0, 8.0]).reshape(1, 1, 1, 2),
        }
        # The gradients are taken of the last output only.
        # y_3 = (4 + 8) / 16 + 1 / 8 + 12 / 2 + 4: these are the contributions of the
        # initial state (4 units of dt old) and of the tokens (3, 1 and 0 units old).
        inputs = {k: v.astype(jnp.float32) for k, v in inputs.items()}
        last_output = jnp.array([0.0, 0, 1], jnp.float32).reshape(1, 3, 1, 1)
        cots = last_output, jnp.zeros((1, 1, 1, 2), jnp.float32)
        found = self.run(inputs, cots)
        expected = {
            "y": [7, 20.5, 10.875],
            "last": [3.375, 7.5],
            "dx": [1 / 8, 4 / 2, 2],
            "dA": [0.75 * 4 + 0.125 * 3 + 6 * 1],
            "dB": [[1 / 8, 1 / 8], [3, 3], [2, 2]],
            "dC": [[0, 0], [0, 0], [3.375, 7.5]],
            "dinitial_state": [1 / 16, 1 / 16],
            # What dt_t scales, and -ln 2 times everything that entered earlier.
            "ddt": [
                0.125 - 0.75 * np.log(2),
                3 - 0.875 * np.log(2),
                4 - 6.875 * np.log(2),
            ],
        }
        expected = {k: np.reshape(v, found[k].shape) for k, v in expected.items()}
        assert_close(found, expected, 1e-6)

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    @pytest.mark.parametrize("state", [True, False])
    def test_results_and_gradients_have_the_stated_dtypes(self, dtype, state):
        inputs = draw(0, l=5, dtype=dtype, state=state)
        inputs["dt"] = inputs["dt"].astype(dtype)
        cots = cotangents(1, inputs)
        found = run.eval_shape(inputs, cots, implementation=self.implementation)
        assert found["y"].dtype == jnp.dtype(dtype)
        assert found["last"].dtype == jnp.float32
        for name, value in inputs.items():
            assert found[f"d{name}"].dtype == value.dtype, name

    def test_bfloat16_agrees_with_float32_on_the_same_numbers(self):
        inputs = draw(3, l=37, h=4, g=2, dtype="bfloat16")
        cots = cotangents(4, inputs)
        wide = {k: v.astype(jnp.float32) for k, v in inputs.items()}
        wide_cots = tuple(v.astype(jnp.float32) for v in cots)
        expected = run(wide, wide_cots, implementation="recurrent")
        for name, value in self.run(inputs, cots).items():
            assert_close({name: value}, {name: expected[name]}, BFLOAT16[name])

    def test_float64_is_float64_throughout(self):
        with jax.enable_x64(True):
            inputs = draw(12, l=37, h=4, g=2, dtype="float64")
            cots = cotangents(13, inputs)
            found = self.run(inputs, cots)
            assert all(v.dtype == jnp.float64 for v in found.values())
            assert_close(found, found | by_loops(**inputs), FLOAT64)
            oracle = run(inputs, cots, implementation="recurrent")
            assert_close(found, oracle, FLOAT64)

    def test_a_decay_beyond_all_bounds_leaves_the_newest_token_alone(self):
        inputs = draw(5, l=150, h=4, g=2)
        inputs |= {"A": jnp.full(4, -1e5), "dt": inputs["dt"] + 0.01}
        cots = cotangents(6, inputs)
        found = self.run(inputs, cots, chunk_size=64)  # long sums, which round
        expected = run(inputs, cots, implementation="recurrent")
        assert all(np.isfinite(v).all() for v in found.values())
        newest = (inputs["B"] * inputs["C"]).sum(-1, keepdims=True).repeat(2, axis=2)
        y = inputs["dt"][..., None] * inputs["x"] * newest
        assert_close({"y": found["y"]}, {"y": y}, FLOAT32)
        for name in ("last", "dx", "dB", "dC"):  # the newest has exp(0) = 1 exactly
            assert_close({name: found[name]}, {name: expected[name]}, FLOAT32)
        np.testing.assert_array_equal(found["dinitial_state"], 0.0)
        np.testing.assert_allclose(found["dA"], 0.0, atol=1e-3)

    def test_no_first_state_is_one_of_zeros(self):
        inputs = draw(7, l=37, h=4, g=2)
        zeros = inputs | {"initial_state": jnp.zeros_like(inputs["initial_state"])}
        expected = self.run(zeros, cotangents(8, inputs))
        del inputs["initial_state"], expected["dinitial_state"]
        assert_close(self.run(inputs, cotangents(8, inputs)), expected, FLOAT32)

    def test_values_are_those_of_plain_loops(self):
        inputs = draw(7, l=37, h=4, g=2)
        found = self.run(inputs, cotangents(8, inputs))
        assert_close(found, found | by_loops(**inputs), FLOAT32)

    def test_two_halves_with_the_state_between_are_the_whole(self):
        inputs = draw(9, l=40)
        whole = self.run(inputs, cotangents(0, inputs))
        per_token = ("x", "dt", "B", "C")
        first = inputs | {k: inputs[k][:, :20] for k in per_token}
        first = self.run(first, cotangents(0, first))
        second = {k: inputs[k][:, 20:] for k in per_token}
        second = inputs | second | {"initial_state": first["last"]}
        second = self.run(second, cotangents(0, second))
        found = {"y": jnp.concatenate([first["y"], second["y"]], 1)}
        found["last"] = second["last"]
        assert_close(found, {k: whole[k] for k in found}, FLOAT32)


@partial(jax.jit, static_argnums=(1, 2), compiler_options=NOT_OPTIMISED)
@jax.grad
def gradients_of(inputs, result, implementation):
    y, last = ssd(**inputs, chunk_size=16, implementation=implementation)
    return jnp.sin(y if result == "y" else last).sum()


class FastCase(SsdCase):
    @pytest.mark.parametrize("shape", SHAPES)
    def test_values_and_gradients_are_those_of_the_recurrence(self, shape):
        inputs = draw(1, **SHAPES[shape])
        cots = cotangents(2, inputs)
        expected = run(inputs, cots, implementation="recurrent")
        assert_close(self.run(inputs, cots), expected, FLOAT32)

    @pytest.mark.parametrize("state", [True, False])
    @pytest.mark.parametrize("result", ["y", "last"])
    def test_gradients_of_one_result_alone_are_those_of_the_recurrence(
        self, result, state
    ):
        inputs = draw(14, l=37, h=4, g=2, state=state)
        found, expected = (
            {
                f"d{k}": v
                for k, v in gradients_of(inputs, result, implementation).items()
            }
            for implementation in (self.implementation, "recurrent")
        )
        assert_close(found, expected, FLOAT32)

    def test_the_chunk_size_changes_nothing_but_rounding(self):
        inputs = draw(10, l=37, h=4, g=2)
        cots = cotangents(11, inputs)
        expected = self.run(inputs, cots, chunk_size=16)
        for chunk_size in (1, 32, 128):
            found = self.run(inputs, cots, chunk_size=chunk_size)
            assert_close(found, expected, FLOAT32)

    def test_products_of_bfloat16_are_accumulated_in_float32(self):
        inputs = draw(3, l=37, h=4, g=2, dtype="bfloat16")
        settings = {"implementation": self.implementation, "chunk_size": 16}
        text = run.lower(inputs, cotangents(4, inputs), **settings).as_text()
        products = re.findall(r"stablehlo.dot_general.*-> tensor<(?:\d+x)*(\w+)>", text)
        assert len(products) > 10
        assert set(products) == {"f32"}


class TestRecurrent(SsdCase):
    implementation = "recurrent"


class TestChunked(FastCase):
    implementation = "chunked"


@pytest.mark.slow
class TestBatched(FastCase):
    implementation = "batched"


def test_all_heads_at_once_are_as_head_by_head():
    inputs = draw(1, **SHAPES["ragged"])
    found, expected = (
        run(inputs, cotangents(2, inputs), implementation=name)
        for name in ("batched", "chunked")
    )
    assert_close(found, expected, 1e-6)


@pytest.mark.parametrize("shape", ["ragged", "no_state"])
def test_automatic_is_chunked_on_a_cpu_to_the_bit(shape):
    inputs = draw(1, **SHAPES[shape])
    cots = cotangents(2, inputs)
    found, expected = (
        run(inputs, cots, implementation=name) for name in (None, "chunked")
    )
    chex.assert_trees_all_equal(found, expected)


class TestPallas(FastCase):
    implementation = "pallas"  # interpreted if there is no GPU

    # The interpreter takes long for these, which the chunked form tests everywhere.
    @pytest.mark.slow
    def test_the_chunk_size_changes_nothing_but_rounding(self):
        super().test_the_chunk_size_changes_nothing_but_rounding()

    @pytest.mark.slow
    def test_no_first_state_is_one_of_zeros(self):
        super().test_no_first_state_is_one_of_zeros()

    @pytest.mark.slow
    def test_two_halves_with_the_state_between_are_the_whole(self):
        super().test_two_halves_with_the_state_between_are_the_whole()

    def test_float64_is_float64_throughout(self):
        with jax.enable_x64(True):  # kernels refuse float64
            inputs = draw(0, l=5, dtype="float64")
            with pytest.raises(ValueError, match=r"pallas takes .* not .* float64"):
                ssd(**inputs, implementation="pallas")
