# SPDX-License-Identifier: Apache-2.0
"""The kernel that fuses silu(gate) * up with its product, interpreted and lowered.

jax's interpreter runs its copies, barriers and products on a CPU, from jax 0.11 on.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import mosaic_gpu as plgpu

from tests.helpers.tiny import tiny_config, tiny_sizes
from tests.ops.cases import assert_close, cuda_context
from trm_jax.errors import ConfigError
from trm_jax.model.config import ModelConfig
from trm_jax.model.model import ReasoningModel, init_params
from trm_jax.ops.gated import gated_product, swiglu

HAS_INTERPRETER = hasattr(plgpu, "InterpretGPUParams")
with_interpreter = pytest.mark.skipif(
    not HAS_INTERPRETER, reason="jax < 0.11 has no interpreter for Mosaic GPU kernels"
)
FORMS = pytest.mark.parametrize("over_rows", [False, True])
# Sizes are length, terms of the sum, width. None of the first two fills its last block.
SMALL, LARGER = (40, 24, 128), (300, 200, 256)


def arguments(sizes, over_rows, dtype="bfloat16"):
    """Two arguments and a cotangent."""
    m, k, n = sizes
    rng = np.random.default_rng(0)
    x, y = ((k, m), (n, m)) if over_rows else ((m, k), (m, n))
    shapes = (x, 1.0), ((k, 2 * n), k**-0.5), (y, 1.0)
    return [jnp.asarray(rng.normal(size=s) * scale, dtype) for s, scale in shapes]


def unfused(x, gate_up, *, over_rows):
    """The oracle, in the dtype of its arguments."""
    return swiglu(gate_up.T @ x, axis=0) if over_rows else swiglu(x @ gate_up)


def values_and_gradients(fn, args):
    value, back = jax.vjp(fn, *args[:2])
    return dict(zip(("y", "dx", "dgate_up"), (value, *back(args[2])), strict=True))


def assert_agrees_with_float64(sizes, over_rows, dtype="bfloat16"):
    args = arguments(sizes, over_rows, dtype)
    fn = partial(gated_product, over_rows=over_rows)
    with plgpu.force_gpu_interpret_mode():
        found = jax.jit(partial(values_and_gradients, fn))(args)
        alone = jax.jit(fn)(*args[:2])
    np.testing.assert_array_equal(found["y"], alone)  # with and without the products
    with jax.enable_x64(True):
        wide = [jnp.asarray(np.asarray(v), "f8") for v in args]
        oracle = partial(unfused, over_rows=over_rows)
        expected = values_and_gradients(oracle, wide)
    # The products and the results are rounded to eight bits, or to eleven.
    assert_close(found, expected, 1e-2 if dtype == "bfloat16" else 2e-3)


@with_interpreter
@FORMS
def test_a_small_product_comes_out(over_rows):
    assert_agrees_with_float64(SMALL, over_rows)


@pytest.mark.slow
@with_interpreter
@FORMS
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_values_and_gradients_agree_with_the_float64_oracle(over_rows, dtype):
    assert_agrees_with_float64(LARGER, over_rows, dtype)


@pytest.mark.slow
@with_interpreter
@FORMS
def test_no_two_accesses_of_shared_memory_race(over_rows):
    """The interpreter raises an error at the first pair of accesses without order."""
    fn = partial(gated_product, over_rows=over_rows)
    with plgpu.force_gpu_interpret_mode(plgpu.InterpretGPUParams(detect_races=True)):
        values_and_gradients(fn, arguments((136, 320, 128), over_rows))


def program(fn, args, devices=1):
    """What is compiled for CUDA."""
    with cuda_context("data", devices):
        traced = jax.jit(fn).trace(*args)
        return traced.lower(lowering_platforms=("cuda",)).as_text()


def kernels(text):
    return [line for line in text.splitlines() if "custom_call @mosaic_gpu" in line]


@with_interpreter
@FORMS
def test_on_cuda_the_products_are_written_for_a_backward_pass_only(over_rows):
    args = arguments((832, 512, 1536), over_rows)
    fn = partial(gated_product, over_rows=over_rows)
    alone = program(fn, args[:2])
    assert "stablehlo.dot_general" not in alone
    (line,) = kernels(alone)
    assert "3072x832xbf16>)" not in line
    assert "832x3072xbf16>)" not in line
    trained = program(lambda *args: values_and_gradients(fn, args), args)
    assert trained.count("stablehlo.dot_general") == 2
    (line,) = kernels(trained)
    assert ("3072x832xbf16>)" if over_rows else "832x3072xbf16>)") in line


@with_interpreter
@FORMS
def test_on_two_gpus_each_kernel_gets_half_of_the_batch(over_rows):
    args = arguments((1664, 512, 1536), over_rows)[:2]
    fn = partial(gated_product, over_rows=over_rows)
    (line,) = kernels(program(fn, args, devices=2))
    assert ("512x832xbf16" if over_rows else "832x512xbf16") in line


@pytest.mark.slow
@with_interpreter
def test_a_network_of_both_forms_agrees_with_the_compilers():
    def refined(form):
        changes = {"model.layers": ("token_mlp", "swiglu"), "model.dtype": "bfloat16"}
        for name in changes["model.layers"]:
            changes[f"model.{name}.width"] = 128
            changes[f"model.{name}.implementation"] = form
        c = ModelConfig.of(tiny_config(changes)["model"], tiny_sizes())
        model = ReasoningModel(c, ("net",))  # without a look at the device
        params = init_params(model, None, jax.random.key(0))
        shape, key = (3, c.seq_len, c.d_model), jax.random.key(1)
        refine = partial(model.apply, {"params": params}, method="refine")
        h = jax.random.normal(key, shape, jnp.bfloat16)
        return jax.jit(lambda h: refine(h, "net"))(h)

    with plgpu.force_gpu_interpret_mode():
        found = refined("mosaic")
    assert_close({"h": found}, {"h": refined("xla")}, 1e-2)


@pytest.mark.skipif(HAS_INTERPRETER, reason="this version of jax has the kernels")
def test_an_older_jax_is_refused():
    with pytest.raises(ValueError, match=r"mosaic needs jax >= 0.11, and this is jax"):
        jax.eval_shape(gated_product, *arguments(SMALL, False)[:2])


@with_interpreter
@pytest.mark.parametrize(
    ("sizes", "dtype", "named"),
    [((8, 8, 96), "bfloat16", "96, bfloat16"), (SMALL, "float32", "128, float32")],
)
def test_what_does_not_fit_is_refused(sizes, dtype, named):
    args = arguments(sizes, False, dtype)[:2]
    message = rf"multiples of 128 and two-byte floats; not {named}"
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(gated_product, *args)


@with_interpreter
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"swiglu.width": 96}, "multiples of 128 .* not 96, bfloat16"),
        ({"dtype": "float32"}, "two-byte floats; not 128, float32"),
        ({"swiglu.inner_norm": True}, "mosaic has no kernel for inner_norm"),
    ],
)
def test_what_mosaic_refuses_is_an_error_of_the_config(changes, message):
    fits = {"dtype": "bfloat16", "swiglu.width": 128, "swiglu.implementation": "mosaic"}
    fits |= {"layers": ("swiglu",)}

    def read(values):
        config = tiny_config({f"model.{k}": v for k, v in values.items()})
        return ModelConfig.of(config["model"], tiny_sizes())

    assert read(fits).for_device("NVIDIA H200 NVL") == read(fits)
    with pytest.raises(ConfigError, match="the device is 'NVIDIA A100'; expected an H"):
        read(fits).for_device("NVIDIA A100")
    with pytest.raises(ConfigError, match=message):
        read(fits | changes)
