# SPDX-License-Identifier: Apache-2.0
"""What the tests of the SSD operator share: inputs, gradients, comparison."""

import contextlib
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from trm_jax.ops.ssd.ssd import IMPLEMENTATIONS, ssd

# The forms that take all sizes and devices; ssd_mosaic_test.py has the other one.
EVERYWHERE = tuple(name for name in IMPLEMENTATIONS if name != "mosaic")
# "batched" is "chunked" without its loop, so that one fast test of it is enough.
FORMS = [
    pytest.param(name, marks=pytest.mark.slow) if name == "batched" else name
    for name in EVERYWHERE
]
ARGUMENTS = ("x", "dt", "A", "B", "C", "initial_state")


def draw(seed, *, b=2, l, h=2, p=8, g=1, n=16, state=True, dtype="float32", decay=1.0):
    """Arguments of ssd by name; dt A is about -decay / 2 on average."""
    rng = np.random.default_rng(seed)  # jax would compile for each shape

    def normal(*shape, dtype=dtype):
        return jnp.asarray(rng.normal(size=shape), dtype)

    wide = jnp.promote_types(dtype, jnp.float32)
    inputs = {
        "x": normal(b, l, h, p),
        "B": normal(b, l, g, n),
        "C": normal(b, l, g, n),
        "dt": jnp.asarray(rng.uniform(0, 1, (b, l, h)), wide),
        "A": jnp.asarray(-decay * rng.uniform(0.1, 2, h), wide),
    }
    if state:
        inputs["initial_state"] = normal(b, h, p, n, dtype=wide)
    return inputs


def cotangents(seed, inputs):
    """Random cotangents of (y, last state)."""
    rng, x = np.random.default_rng(seed), inputs["x"]
    (b, _, h, p), n = x.shape, inputs["B"].shape[-1]
    wide = jnp.promote_types(x.dtype, jnp.float32)
    y, last = (rng.normal(size=s) for s in (x.shape, (b, h, p, n)))
    return jnp.asarray(y, x.dtype), jnp.asarray(last, wide)


# These tests spend nearly all their time in the compiler, so it does not optimise.
NOT_OPTIMISED = {"xla_backend_optimization_level": 0}


@partial(
    jax.jit,
    static_argnames=("implementation", "chunk_size"),
    compiler_options=NOT_OPTIMISED,
)
def run(inputs, cotangents, *, implementation, chunk_size=16):
    """Values and gradients by name: "y", "last", and "d" + each argument."""

    def fn(inputs):
        return ssd(**inputs, implementation=implementation, chunk_size=chunk_size)

    (y, last), vjp = jax.vjp(fn, inputs)
    grads = {f"d{name}": grad for name, grad in vjp(cotangents)[0].items()}
    return {"y": y, "last": last} | grads


def assert_close(found, expected, tolerance):
    """Dicts with the same names agree, relative to the largest value of each array.

    The contributions of all tokens to dA largely cancel, so its round-off is ten times
    that of other arrays.
    """
    assert set(found) == set(expected)
    for name, value in expected.items():
        ours = np.asarray(found[name], np.float64)
        value = np.asarray(value, np.float64)
        assert ours.shape == value.shape, name
        assert np.isfinite(ours).all(), f"{name} is not finite"
        error = np.abs(ours - value).max() / max(np.abs(value).max(), 1e-30)
        allowed = 10 * tolerance if name == "dA" else tolerance
        assert error <= allowed, f"{name} is off by {error:.1e} of its largest value"


def cuda_context(axis="x", size=1):
    """A context in which newer versions of JAX lower for a GPU without having one."""
    if jax.__version_info__ < (0, 11):
        return contextlib.nullcontext()
    device = jax.sharding.AbstractDevice(
        device_kind="NVIDIA H200", num_cores=None, platform="gpu"
    )
    mesh = jax.sharding.AbstractMesh(
        (size,),
        (axis,),
        axis_types=(jax.sharding.AxisType.Auto,),
        abstract_device=device,
    )
    return jax.sharding.use_abstract_mesh(mesh)
