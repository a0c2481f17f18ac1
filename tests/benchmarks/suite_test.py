# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run: a mistake in them should not wait for a GPU to show."""

import json

import pytest

from tests.runs import call


@pytest.mark.slow
def test_the_gpu_suite_runs_on_a_cpu(tmp_path):
    flags = ["--batch=2", "--steps=1", f"--out={tmp_path}"]
    result = call("benchmarks/gpu_suite.py", *flags)
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.glob("gpu_suite_*.json")
    report = json.loads(path.read_text())
    assert {row["mixer"] for row in report["steps"]} == {"mlp_t", "attention"}
    assert all(row["ms_per_step"] > 0 for row in report["steps"])
    assert max(report["matmul_error"].values()) < 0.02


@pytest.mark.slow
def test_the_step_benchmark_prints_its_table(tmp_path):
    flags = ["--mixer", "mlp_t", "--dtype", "float32", "--batch=1", "--steps=1"]
    out = tmp_path / "rows.json"
    result = call("benchmarks/step.py", *flags, f"--json={out}")
    assert result.returncode == 0, result.stderr
    (row,) = json.loads(out.read_text())
    assert 0 < row["ratio"] < 2
    assert row["model_flops"] == pytest.approx(0.34e12 / 8, rel=0.02)
    assert "mlp_t" in result.stdout
