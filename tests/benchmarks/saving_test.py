# SPDX-License-Identifier: Apache-2.0
"""The benchmark of saves runs, and its figures are consistent."""

import json

import pytest

from tests.helpers.runs import call


@pytest.mark.slow
def test_saves_and_a_restart_are_timed(tmp_path):
    out = tmp_path / "saving.json"
    args = ("--cases", "smoke", "--saves=1", f"--workdir={tmp_path}", f"--json={out}")
    result = call("benchmarks/saving.py", *args, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    (row,) = json.loads(out.read_text())["cases"]
    assert row["stall_s"] >= row["blocked_s"] > 0
    assert row["stall_share"] == pytest.approx(
        row["stall_s"] / (1000 * row["step_s"] + row["stall_s"])
    )
    assert row["to_disk_s"] > row["blocked_s"]
    assert row["digest_s"] > 0
    assert 0 < row["restart_s"] < 60
    assert list(tmp_path.iterdir()) == [out]  # the runs are removed
