# SPDX-License-Identifier: Apache-2.0
"""In float32 the fast forms of the SSD operator round as little as the recurrent one.

All are compared with the recurrent form in float64. The fast forms need decays over any
segment of a chunk. The running sum of dt A grows to some thousands there, and the
difference of two float32 numbers of that size keeps three digits.

`python -m tests.ops.ssd_accuracy_test` prints the errors at length 150.
"""

import sys
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.ops.cases import EVERYWHERE, cotangents, draw, run

# dt A is about -decay / 2 on average; with the long step, one token has dt = 600.
DECAYS = [(0.0, False), (0.05, False), (1.0, False), (10.0, False), (300.0, False)]
DECAYS += [(0.05, True), (1.0, True)]
FORMS = [name for name in EVERYWHERE if name != "recurrent"]
FAST = [
    name if name == "chunked" else pytest.param(name, marks=pytest.mark.slow)
    for name in FORMS
]
LENGTHS = [*(pytest.param(l, marks=pytest.mark.slow) for l in (1, 11, 48)), 150]
EXACT_ENOUGH = 2.0**-27  # an eighth of the most that one rounding changes


@lru_cache
def case(length, decay, long_step):
    """Inputs and cotangents."""
    inputs = draw(1, b=max(2, 64 // length), l=length, h=32, g=2, decay=decay)
    if long_step:
        inputs["dt"] = inputs["dt"].at[:, length // 3].set(600.0)
    return inputs, cotangents(2, inputs)


def errors(found, exact):
    """The root mean square of each array's error, relative to that of its values."""
    off = {k: np.asarray(found[k], np.float64) - v for k, v in exact.items()}
    return {k: rms(off[k]) / max(rms(v), 1e-30) for k, v in exact.items()}


def rms(v):
    return np.sqrt(np.mean(v**2))


@lru_cache
def of_recurrence(*settings):
    """Values and gradients in float64, and the errors of the same form in float32."""
    inputs, cots = case(*settings)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), (inputs, cots))
        exact = jax.tree.map(np.asarray, run(*wide, implementation="recurrent"))
    return exact, errors(run(inputs, cots, implementation="recurrent"), exact)


@pytest.mark.parametrize(("decay", "long_step"), DECAYS)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("implementation", FAST)
def test_the_error_is_at_most_twice_that_of_the_recurrence(
    implementation, length, decay, long_step
):
    exact, allowed = of_recurrence(length, decay, long_step)
    inputs, cots = case(length, decay, long_step)
    found = run(inputs, cots, implementation=implementation, chunk_size=64)
    for name, error in errors(found, exact).items():
        # dA has 32 values, in which most terms cancel: their errors vary by chance.
        limit = (8 if name == "dA" else 2) * allowed[name] + EXACT_ENOUGH
        assert error <= limit, f"{name} is off by {error:.1e}; allowed {limit:.1e}"


def table():
    """Print the errors of every form at each decay."""
    for decay, long_step in DECAYS:
        exact, found = of_recurrence(150, decay, long_step)
        rows = {"recurrent": found}
        inputs, cots = case(150, decay, long_step)
        for form in FORMS:
            values = run(inputs, cots, implementation=form, chunk_size=64)
            rows[form] = errors(values, exact)
        for form, row in rows.items():
            cells = (f"{name} {error:.1e}" for name, error in row.items())
            start = f"{decay:>6} {'dt = 600' if long_step else '':<8} {form:<9}"
            sys.stdout.write(" ".join([start, *cells]) + "\n")


if __name__ == "__main__":
    table()
