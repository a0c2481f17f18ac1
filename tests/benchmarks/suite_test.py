# SPDX-License-Identifier: Apache-2.0
"""The benchmarks run on a CPU, so that a mistake in them shows without a GPU.

The GPU suite runs without the packages that a rented GPU may lack.
"""

import json

import pytest

from tests.benchmarks.absent import without_packages
from tests.helpers.runs import call

TINY = ("--batch=1", "--steps=1")


def suite(part, out):
    flags = ("--parts", part, *TINY, "--budget_s=1800", f"--out={out}")
    env = without_packages(out)
    result = call("benchmarks/gpu_suite.py", *flags, timeout=1800, env=env)
    assert result.returncode == 0, result.stdout + result.stderr
    (path,) = out.glob(f"gpu_suite_*_{part}.json")
    report = json.loads(path.read_text())
    assert report["left_out"] == []
    return report


@pytest.mark.slow
def test_the_gpu_suite_times_steps_on_a_cpu(tmp_path):
    report = suite("steps", tmp_path)
    mixers = {"mlp_t", "attention", "mamba2_mlp_t", "mamba2_attn"}
    assert {row["mixer"] for row in report["steps"]} == mixers
    # On a CPU the peak is measured beside other tests, so the share may exceed 1.
    assert all(0 < row["share_of_peak"] < 3 for row in report["steps"])
    assert all(row["ms_per_step"] > 0 for row in report["steps"])
    assert max(report["matmul_error"].values()) < 0.02


@pytest.mark.slow
def test_the_gpu_suite_times_steps_of_mazes_and_arc_on_a_cpu(tmp_path):
    rows = suite("tasks", tmp_path)["tasks"]
    assert len({(row["config"], row["mixer"]) for row in rows}) == 2 * 2
    assert all(row["ms_per_step"] > 0 for row in rows)


@pytest.mark.slow
def test_the_gpu_suite_judges_the_kernels_on_a_cpu(tmp_path):
    rows = suite("numerics", tmp_path)["numerics"]
    scans, others = rows[:4], rows[4:]
    assert len({(row["dtype"], row["g"]) for row in scans}) == 4
    assert [row["operator"] for row in others] == ["gated"] * 2 + ["attention"] * 3
    for row in others:
        assert row["form"] == "xla"
        assert 0 < max(row["errors"].values()) < 0.02
    for row in scans:
        assert {"y", "grad_x", "grad_dt", "grad_A"} <= set(row["errors"])
        assert ("grad_initial_state" in row["errors"]) == row["initial_state"]
        limit = 0.02 if row["dtype"] == "bfloat16" else 1e-5
        assert max(row["errors"].values()) < limit


@pytest.mark.slow
def test_the_gpu_suite_times_attention_on_a_cpu(tmp_path):
    rows = suite("attention", tmp_path)["attention"]
    timed = [row for row in rows if "ms" in row]
    assert {(row["l"], row["direction"]) for row in timed} == {
        (l, way) for l in (97, 916) for way in ("forward", "forward+backward")
    }
    assert all(0 < max(row["errors"].values()) < 0.02 for row in timed)
    assert {row["implementation"] for row in rows} == {"xla", "cudnn"}


@pytest.mark.slow
def test_the_gpu_suite_times_refill_on_a_cpu(tmp_path):
    (row,) = suite("refill", tmp_path)["refill"]
    assert (row["weights"], row["puzzles"]) == ("sudoku_6x6", 8)
    assert min(row["puzzles_per_s"].values()) > 0
    assert set(row["rows_with_other_scores"].values()) == {0}
    scores = row["exact_accuracy"]
    assert scores["refill"] == scores["fixed_under_the_halting_rule"] > 0.5


@pytest.mark.slow
def test_the_gpu_suite_trains_on_a_cpu(tmp_path):
    (row,) = suite("training", tmp_path)["training"]
    assert [line["step"] for line in row["curve"]] == [1, 2]
    assert all(line["train/cell_loss"] > 0 for line in row["curve"])
    assert all("eval/exact_accuracy" in line for line in row["curve"])


@pytest.mark.slow
def test_the_gpu_suite_times_the_ssd_on_a_cpu(tmp_path):
    report = suite("ssd", tmp_path)
    assert {row["l"] for row in report["ssd"]} == {97, 916}
    timed = {row["implementation"] for row in report["ssd"] if "ms" in row}
    assert timed == {"chunked"}


@pytest.mark.slow
def test_the_gpu_suite_compares_whole_runs_on_a_cpu(tmp_path):
    rows = suite("runs", tmp_path)["runs"]
    assert [row["network"] for row in rows] == ["mlp_t", "attention", "mamba2_attn"]
    for row in rows:
        equal = row["equal"]
        assert list(equal) == [
            "a second run",
            "killed and resumed",
            "restored on a CPU",
        ]
        assert all(equal.values())


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


@pytest.mark.slow
def test_the_puzzle_table_benchmark_prints_its_figures(tmp_path):
    flags = ["--rows=6144", "--dim=16", "--batch=8", f"--json={tmp_path / 'rows.json'}"]
    result = call("benchmarks/puzzle_table.py", *flags)
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "rows.json").read_text()
    assert json.loads(text)
    assert "update" in result.stdout
