# SPDX-License-Identifier: Apache-2.0
"""The program that each platform gets, and its distribution over devices.

Lowering for a GPU does not need one, so these tests run anywhere.
"""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from tests.ops.cases import FORMS, NOT_OPTIMISED, assert_close, cuda_context, draw
from trm_jax.ops.ssd.ssd import ssd
from trm_jax.training.sharding import in_mesh, make_mesh

KERNEL = re.compile(r"custom_call @__gpu\$xla\.gpu\.triton")


def loss(implementation, x, dt, A, B, C):
    y, last = ssd(x, dt, A, B, C, implementation=implementation)
    return (jnp.sin(y) ** 2).mean().astype(jnp.float32) + (last**2).mean()


def shapes(length, dtype, *leading, b=2, h=16, p=64, n=128):
    def array(*shape, dtype=jnp.float32):
        return jax.ShapeDtypeStruct((*leading, *shape), dtype)

    x, B = (array(b, length, *s, dtype=dtype) for s in ((h, p), (1, n)))
    return x, array(b, length, h), array(h), B, B


def lowered(fn, args, platform):
    with cuda_context():
        return jax.jit(fn).trace(*args).lower(lowering_platforms=(platform,)).as_text()


def grad(implementation):
    return jax.value_and_grad(partial(loss, implementation), argnums=range(5))


def looped(implementation):
    """The gradient through scan, checkpoint and vmap, as a model may use them."""

    def fn(x, dt, A, B, C):
        def step(x, _):
            run = jax.vmap(partial(ssd, implementation=implementation))
            return x + run(x, dt, A, B, C)[0], None

        return jax.lax.scan(jax.checkpoint(step), x, length=2)[0].mean()

    return jax.grad(fn, argnums=range(5))


@pytest.mark.parametrize(
    ("implementation", "length", "dtype"),
    [
        (None, 97, "float32"),
        (None, 97, "bfloat16"),
        (None, 916, "float32"),
        (None, 916, "bfloat16"),
        ("pallas", 97, "bfloat16"),
    ],
)
def test_on_cuda_the_scan_is_kernels_and_nothing_else(implementation, length, dtype):
    args = shapes(length, dtype)
    forward = lowered(partial(loss, implementation), args, "cuda")
    backward = lowered(grad(implementation), args, "cuda")
    # Kernels for y and the last state; for gradients also states, cotangents, chunks.
    assert [len(KERNEL.findall(text)) for text in (forward, backward)] == [2, 5]
    for text in (forward, backward):
        assert "stablehlo.dot_general" not in text
        assert "stablehlo.while" not in text


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_on_cuda_loops_around_the_scan_hold_kernels_too(dtype):
    text = lowered(looped(None), shapes(97, dtype, 2), "cuda")
    assert len(KERNEL.findall(text)) >= 4
    assert text.count("stablehlo.while") == 2  # the scan, forward and backward
    assert "stablehlo.dot_general" not in text


@pytest.mark.parametrize("implementation", ["recurrent", "chunked"])
def test_on_cuda_the_other_forms_have_no_kernels(implementation):
    text = lowered(grad(implementation), shapes(97, "float32"), "cuda")
    assert not KERNEL.search(text)
    assert "stablehlo.dot_general" in text


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("implementation", [None, "pallas"])
def test_elsewhere_there_are_no_kernels(implementation, platform):
    text = lowered(grad(implementation), shapes(97, "float32"), platform)
    assert "triton" not in text
    assert "stablehlo.dot_general" in text


def test_where_kernels_do_not_fit_cuda_gets_the_chunked_form():
    args = shapes(97, "float32", p=24)
    text = lowered(partial(loss, None), args, "cuda")
    assert text == lowered(partial(loss, "chunked"), args, "cuda")


def test_on_two_gpus_each_kernel_gets_half_of_the_batch():
    mesh = jax.sharding.AbstractMesh((2,), ("data",))
    x, *rest = shapes(97, "float32", b=6)
    with (
        cuda_context("data", 2)
        if jax.__version_info__ >= (0, 11)
        else (jax.sharding.use_abstract_mesh(mesh))
    ):
        traced = jax.jit(grad(None)).trace(x, *rest)
        text = traced.lower(lowering_platforms=("cuda",)).as_text()
    calls = [line for line in text.splitlines() if KERNEL.search(line)]
    assert len(calls) == 5
    assert all("tensor<3x97x16x64xf32>" in line for line in calls)


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(2)


ROWS = draw(0, b=4, l=20, h=4, g=2)


def all_of_it(implementation, inputs):
    """Values, and the gradients of a sum that depends on all of them."""

    def fn(inputs):
        y, last = ssd(**inputs, chunk_size=16, implementation=implementation)
        return jnp.sin(y).sum() + jnp.sin(last).sum(), {"y": y, "last": last}

    grads, values = jax.grad(fn, has_aux=True)(inputs)
    return values | {f"d{k}": v for k, v in grads.items()}


def compiled(fn, mesh):
    """The compiled program and its arguments, with the batch spread over the mesh."""
    specs = {k: P() if k == "A" else P("data") for k in ROWS}
    args = {
        k: jax.device_put(v, NamedSharding(mesh, specs[k])) for k, v in ROWS.items()
    }
    return jax.jit(fn).lower(args).compile(NOT_OPTIMISED), args


@pytest.mark.slow
@pytest.mark.parametrize("implementation", [*FORMS, None])
def test_rows_over_two_devices_are_never_gathered(implementation, mesh):
    fn = partial(all_of_it, implementation)
    program, args = compiled(in_mesh(fn, mesh), mesh)
    assert "all-gather" not in program.as_text()
    found = program(args)
    rows = NamedSharding(mesh, P("data"))
    for name, value in found.items():
        split = value.sharding.is_equivalent_to(rows, value.ndim)
        assert split == (name != "dA"), name
    expected = jax.jit(fn, compiler_options=NOT_OPTIMISED)(ROWS)
    assert_close(found, jax.tree.map(np.asarray, expected), 1e-5)


def test_without_the_mesh_in_context_kernels_gather_the_rows(mesh):
    program, _ = compiled(partial(all_of_it, "pallas"), mesh)
    assert "all-gather" in program.as_text()


def test_under_vmap_rows_are_not_gathered_either(mesh):
    def fn(inputs):
        return jax.vmap(partial(all_of_it, "pallas"))(
            {k: v[None] for k, v in inputs.items()}
        )

    program, _ = compiled(in_mesh(fn, mesh), mesh)
    assert "all-gather" not in program.as_text()


def test_a_batch_that_the_mesh_does_not_divide_still_comes_out(mesh):
    rows = {k: v if k == "A" else v[:3] for k, v in ROWS.items()}
    fn = partial(all_of_it, "pallas")
    found = jax.jit(in_mesh(fn, mesh), compiler_options=NOT_OPTIMISED)(rows)
    assert_close(found, jax.jit(fn, compiler_options=NOT_OPTIMISED)(rows), 1e-5)
