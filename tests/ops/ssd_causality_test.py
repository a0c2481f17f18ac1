# SPDX-License-Identifier: Apache-2.0
"""Which output depends on which input, found from exact zeros in the gradients."""

import jax
import numpy as np
import pytest

from tests.ops.cases import FORMS, NOT_OPTIMISED, draw
from trm_jax.ops.ssd.ssd import ssd

LENGTH = 37  # two chunks and a part of one


@pytest.fixture(scope="module", params=FORMS)
def seen(request):
    """For each argument: whether output t depends on its value at time s, `t s`."""
    inputs = draw(0, b=1, l=LENGTH, h=1, p=2, n=4)
    keys = ("x", "dt", "B", "C")

    def outputs(moving):
        settings = {"chunk_size": 16, "implementation": request.param}
        y, last = ssd(**inputs | moving, **settings)
        return y.sum((0, 2, 3)), last.sum()

    jacobian = jax.jit(jax.jacrev(outputs), compiler_options=NOT_OPTIMISED)
    of_y, of_last = jacobian({k: inputs[k] for k in keys})

    def any_nonzero(grad, times):
        return (np.asarray(grad).reshape(*times, -1) != 0).any(-1)

    return {
        k: (any_nonzero(of_y[k], (LENGTH, LENGTH)), any_nonzero(of_last[k], (LENGTH,)))
        for k in keys
    }


@pytest.mark.parametrize("name", ["x", "dt", "B"])
def test_an_output_sees_all_inputs_up_to_its_own_time_and_no_later_one(seen, name):
    np.testing.assert_array_equal(seen[name][0], np.tri(LENGTH, dtype=bool))


def test_an_output_is_read_with_the_c_of_its_own_time_alone(seen):
    np.testing.assert_array_equal(seen["C"][0], np.eye(LENGTH, dtype=bool))


def test_the_last_state_sees_all_inputs_but_c(seen):
    assert all(seen[name][1].all() for name in ("x", "dt", "B"))
    assert not seen["C"][1].any()
