# SPDX-License-Identifier: Apache-2.0
"""Cases of benchmarks without the collections of garbage after each.

They free the memory of a GPU after a case. In a process that has run many tests, each
of them takes a second.
"""

import pytest

from benchmarks import common


@pytest.fixture(autouse=True)
def no_collection(request, monkeypatch):
    """Tests marked slow run the benchmarks as they are."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(common.gc, "collect", lambda: 0)
