# SPDX-License-Identifier: Apache-2.0
"""The Mosaic GPU kernels of the SSD operator, interpreted and lowered.

jax's interpreter runs their copies, barriers and products on a CPU, from jax 0.11 on.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import mosaic_gpu as plgpu

from tests.ops.cases import assert_close, cotangents, cuda_context, draw
from tests.ops.ssd_platforms_test import grad, looped, loss, shapes
from trm_jax.ops.ssd.ssd import ssd

HAS_INTERPRETER = hasattr(plgpu, "InterpretGPUParams")
with_interpreter = pytest.mark.skipif(
    not HAS_INTERPRETER, reason="jax < 0.11 has no interpreter for Mosaic GPU kernels"
)
# As for the other forms in bfloat16; dA is a sum over tokens that largely cancels.
TOLERANCES = {"y": 8e-3, "dx": 8e-3, "dB": 8e-3, "dC": 8e-3, "last": 4e-3}
TOLERANCES |= {"dinitial_state": 4e-3, "ddt": 5e-3, "dA": 1e-3}


def values_and_gradients(implementation, inputs, cots):
    def fn(inputs):
        return ssd(**inputs, implementation=implementation)

    (y, last), vjp = jax.vjp(fn, inputs)
    grads = {f"d{name}": grad for name, grad in vjp(cots)[0].items()}
    return {"y": y, "last": last} | grads


def assert_agrees_with_float64(inputs, cots):
    with plgpu.force_gpu_interpret_mode():
        found = jax.jit(partial(values_and_gradients, "mosaic"))(inputs, cots)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda v: jnp.asarray(np.asarray(v), "f8"), (inputs, cots))
        expected = values_and_gradients("recurrent", *wide)
    for name, value in found.items():
        assert_close({name: value}, {name: expected[name]}, TOLERANCES[name])


@with_interpreter
def test_a_few_tokens_come_out():
    inputs = draw(0, b=1, l=9, h=1, p=64, n=64, dtype="bfloat16", state=False)
    assert_agrees_with_float64(inputs, cotangents(1, inputs))


@pytest.mark.slow
@with_interpreter
@pytest.mark.parametrize(
    "sizes",
    [
        {"l": 97, "h": 2, "n": 128},  # two heads share B and C
        {"l": 97, "h": 2, "n": 128, "state": False},
        {"l": 200, "h": 3, "n": 64, "b": 1},  # more chunks, and heads, than stages
        {"l": 150, "h": 6, "g": 2, "n": 64, "b": 1},
        {"l": 64, "h": 1, "n": 128, "decay": 300.0},
        {"l": 128, "h": 1, "n": 128, "decay": 0.0},
        {"l": 70, "h": 2, "n": 64, "dtype": "float16"},
    ],
    ids=str,
)
def test_values_and_gradients_agree_with_the_float64_oracle(sizes):
    # A weak decay: much of a state is left after a chunk.
    inputs = draw(2, **{"p": 64, "dtype": "bfloat16", "decay": 0.05} | sizes)
    assert_agrees_with_float64(inputs, cotangents(3, inputs))


@pytest.mark.slow
@with_interpreter
def test_no_two_accesses_of_shared_memory_race():
    """The interpreter raises an error at the first pair of accesses without order."""
    inputs = draw(4, b=1, l=200, h=4, p=64, n=64, dtype="bfloat16")
    with plgpu.force_gpu_interpret_mode(plgpu.InterpretGPUParams(detect_races=True)):
        values_and_gradients("mosaic", inputs, cotangents(5, inputs))


def kernel_calls(fn, args, devices=1):
    """The lines of the program for CUDA that call a Mosaic GPU kernel."""
    with cuda_context("data", devices):
        traced = jax.jit(fn).trace(*args)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.dot_general" not in text
    return [line for line in text.splitlines() if "custom_call @mosaic_gpu" in line]


@pytest.mark.slow
@with_interpreter
@pytest.mark.parametrize("length", [97, 916])
def test_on_cuda_the_scan_is_kernels_and_nothing_else(length):
    args = shapes(length, "bfloat16")
    # Kernels for y and the last state; for gradients also states, cotangents, chunks.
    assert len(kernel_calls(partial(loss, "mosaic"), args)) == 2
    assert len(kernel_calls(grad("mosaic"), args)) == 5


@pytest.mark.slow
@with_interpreter
def test_on_cuda_loops_around_the_scan_hold_kernels_too():
    args = shapes(97, "bfloat16", 2)
    assert len(kernel_calls(looped("mosaic"), args)) >= 4


@pytest.mark.slow
@with_interpreter
def test_on_two_gpus_each_kernel_gets_half_of_the_batch():
    calls = kernel_calls(grad("mosaic"), shapes(97, "bfloat16", b=6), devices=2)
    assert len(calls) == 5
    assert all("tensor<3x104x16x64xbf16>" in line for line in calls)


@pytest.mark.skipif(HAS_INTERPRETER, reason="this version of jax has the kernels")
def test_an_older_jax_is_refused():
    with pytest.raises(ValueError, match=r"mosaic needs jax >= 0.11, and this is jax"):
        jax.eval_shape(partial(ssd, implementation="mosaic"), *shapes(97, "bfloat16"))


@with_interpreter
@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({"p": 32}, "32, 128, 64, bfloat16"),
        ({"n": 96}, "64, 96, 64, bfloat16"),
        ({"n": 192}, "64, 192, 64, bfloat16"),
        ({"dtype": "float32"}, "64, 128, 64, float32"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes, named):
    args = shapes(97, **{"dtype": "bfloat16"} | sizes)
    message = rf"mosaic takes p of 64, n of 64 or 128, .* not {named}"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(partial(ssd, implementation="mosaic"), *args)


@with_interpreter
def test_another_chunk_size_is_refused():
    fn = partial(ssd, implementation="mosaic", chunk_size=32)
    with pytest.raises(ValueError, match=r"chunk_size 64 .* not 64, 128, 32,"):
        jax.eval_shape(fn, *shapes(97, "bfloat16"))


@with_interpreter
def test_a_cpu_is_refused_unless_jax_interprets():
    inputs = draw(6, b=1, l=9, h=1, p=64, n=64, dtype="bfloat16")
    with pytest.raises(ValueError, match="Only interpret mode is supported on CPU"):
        jax.jit(partial(ssd, implementation="mosaic"))(**inputs)
