# SPDX-License-Identifier: Apache-2.0
"""Attention with a norm over its joined heads, written out in numpy."""

import jax
import numpy as np
import pytest

from tests.helpers.tiny import tiny_built
from trm_jax.errors import ConfigError
from trm_jax.model.sublayers import SUBLAYERS
from trm_jax.settings import defaults, read

HEADS, WIDTH, LENGTH = 2, 4, 3


@pytest.mark.parametrize("inner_norm", [False, True])
def test_the_norm_runs_over_the_joined_heads(inner_norm):
    kind = SUBLAYERS["attention"]
    chosen = {"num_heads": HEADS, "positions": "none", "inner_norm": inner_norm}
    values = defaults(kind.Settings) | chosen
    layer = kind(read(kind.Settings, values, "model.attention"), (1, LENGTH), 0)
    d, rng = HEADS * WIDTH, np.random.default_rng(0)
    x = rng.normal(size=(2, LENGTH, d)).astype("float32")
    wide, out = (rng.normal(size=(d, n)).astype("float32") for n in (3 * d, d))
    params = {"qkv": {"kernel": wide}, "out": {"kernel": out}}
    found = jax.jit(layer.apply)({"params": params}, x)

    heads = (x @ wide).reshape(2, LENGTH, 3, HEADS, WIDTH)
    q, k, v = (heads[:, :, i].swapaxes(1, 2) for i in range(3))  # b h l k
    scores = np.exp(q @ k.swapaxes(2, 3) / np.sqrt(WIDTH))
    each = scores / scores.sum(-1, keepdims=True) @ v
    joined = each.swapaxes(1, 2).reshape(2, LENGTH, d)
    if inner_norm:
        joined = joined / np.sqrt((joined**2).mean(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(found, joined @ out, rtol=2e-4, atol=2e-4)


def test_fixed_registers_without_registers_are_refused():
    with pytest.raises(ConfigError, match="registers_trained = False, but nothing"):
        tiny_built({"model.registers_trained": False})
