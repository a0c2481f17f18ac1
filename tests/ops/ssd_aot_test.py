# SPDX-License-Identifier: Apache-2.0
"""The memory that the kernels take on an H200, found by its compiler without one."""

import json
import os
import subprocess
import sys

import pytest
from jax.experimental.pallas import mosaic_gpu as plgpu

from tests.helpers.runs import ROOT

pytestmark = pytest.mark.aot
GIB = 2**30
SHARED_MEMORY = 227 * 2**10  # per block, on Hopper
# Temporary memory in GiB at a batch of 768.
TEMPORARY = {
    (97, "forward"): 0.0,
    (97, "y_alone"): 0.0,
    (97, "backward"): 0.76,
    (916, "forward"): 0.0,
    (916, "backward"): 5.7,
}
# The last state has its own kernel, which is dropped if the state is not read.
KERNELS = {"forward": 2, "y_alone": 1, "backward": 3}


# Of the Mosaic kernels; x, B and C are padded to a multiple of 8 tokens before.
MOSAIC_TEMPORARY = {(97, "forward"): 0.22, (97, "backward"): 1.4}


def resources(length, which, folder, implementation):
    pytest.importorskip(
        "jax_cuda13_plugin", reason="compiling for a GPU needs jax's CUDA plug-in"
    )
    settings = {
        "JAX_PLATFORMS": "cpu",
        "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
        "JAX_ENABLE_COMPILATION_CACHE": "false",  # a cache hit leaves no dump
        "XLA_FLAGS": f"--xla_dump_to={folder}",
        "MOSAIC_GPU_DUMP_TO": str(folder),
    }
    for part in ("PTX", "PTXAS", "RESOURCES"):
        settings[f"MOSAIC_GPU_DUMP_{part}"] = "1"
    args = (str(length), which, folder, implementation)
    result = subprocess.run(
        [sys.executable, "-m", "tests.ops.aot_program", *args],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(("length", "which"), TEMPORARY)
def test_the_kernels_fit_into_an_h200(length, which, tmp_path):
    found = resources(length, which, tmp_path, "pallas")
    assert len(found["shared"]) == KERNELS[which]
    assert max(found["shared"]) <= SHARED_MEMORY
    assert found["temporary"] <= 1.1 * TEMPORARY[length, which] * GIB
    # If kept per head, the gradients of B and C would already take more than this.
    assert found["temporary"] < 2 * 768 * length * 16 * 128 * 4


with_mosaic = pytest.mark.skipif(
    not hasattr(plgpu, "InterpretGPUParams"), reason="mosaic needs jax >= 0.11"
)


@with_mosaic
@pytest.mark.parametrize(("length", "which"), MOSAIC_TEMPORARY)
def test_the_mosaic_kernels_fit_into_an_h200(length, which, tmp_path):
    found = resources(length, which, tmp_path, "mosaic")
    assert found["temporary"] <= 1.1 * MOSAIC_TEMPORARY[length, which] * GIB
    assert len(found["mosaic"]) == KERNELS[which]
    for kernel in found["mosaic"]:
        assert kernel["shared_bytes"] <= SHARED_MEMORY
        assert kernel["wgmma"] > 0
        assert kernel["spilled_bytes"] <= 100  # addresses that do not change


@with_mosaic
@pytest.mark.parametrize("operator", ["token_mlp", "swiglu"])
def test_the_fused_gated_products_fit_into_an_h200(operator, tmp_path):
    (kernel,) = resources(97, operator, tmp_path, "mosaic")["mosaic"]
    assert kernel["shared_bytes"] <= SHARED_MEMORY
    assert kernel["wgmma"] > 0
    assert kernel["spilled_bytes"] == 0
