# SPDX-License-Identifier: Apache-2.0
"""The comparison of solved and unsolved puzzles, on two puzzles of a model."""

import numpy as np
import pytest

from benchmarks import stability
from tests.helpers.untrained import model_of


@pytest.mark.slow
def test_both_groups_are_measured_and_a_group_may_be_empty(monkeypatch):
    model = model_of()
    monkeypatch.setattr(stability.trm_jax, "load", lambda workdir: model)
    found = stability.compare("anywhere", 2)
    assert found["puzzles"] == 8
    assert found["solved"] == {"of": 0, "numbers": []}  # fresh weights solve nothing
    unsolved = found["unsolved"]
    assert unsolved["of"] == 8
    assert unsolved["numbers"] == [0, 1]
    for name in stability.NAMES:
        assert np.shape(unsolved[name]) == (2,)
        assert np.isfinite(unsolved[name]).all()
    text = stability.as_text(found)
    assert "solved: 0, of which 0 measured" in text
    assert "2 spectra converged" in text
