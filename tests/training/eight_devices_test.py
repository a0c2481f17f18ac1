# SPDX-License-Identifier: Apache-2.0
"""Test files that adapt to the number of devices run once more on eight.

They compile little, as `make test` does: what counts is how a step is shared out, and
one step is compiled for each layout.
"""

import os
import subprocess
import sys

import pytest

from tests.helpers.runs import ROOT


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["runtime/elastic", "training/mesh", "training/puzzle_table"]
)
def test_all_of_it_on_eight_devices(name):
    flags = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [*line, f"tests/{name}_test.py"],
        cwd=ROOT,
        env=os.environ | flags,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "skipped" not in result.stdout
