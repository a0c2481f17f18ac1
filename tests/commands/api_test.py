# SPDX-License-Identifier: Apache-2.0
"""Where api.py finds the data pipeline: beside trm_jax or inside, never both."""

import shutil
import subprocess
import sys

import pytest

from tests.helpers.runs import ROOT

PROGRAM = """
import sys
from trm_jax import api
print(api.pipeline("errors").__name__, api.pipeline("tasks").DataError.__module__)
print(*[name for name in sys.modules if name.endswith("data_pipeline")])
"""


@pytest.mark.parametrize("place", ["data_pipeline", "trm_jax/data_pipeline"])
def test_the_data_pipeline_is_found_in_a_checkout_and_in_a_wheel(tmp_path, place):
    pycache = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "trm_jax", tmp_path / "trm_jax", ignore=pycache)
    shutil.copytree(ROOT / "data_pipeline", tmp_path / place, ignore=pycache)
    line = [sys.executable, "-c", PROGRAM]
    out = subprocess.check_output(line, cwd=tmp_path, text=True)
    package = place.replace("/", ".")
    errors = f"{package}.errors"
    assert out.splitlines() == [f"{errors} {errors}", package]
