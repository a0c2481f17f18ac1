# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys

import pytest

from trm_jax.inspect.plots import plot_curves, read_metrics


@pytest.fixture
def workdir(tmp_path):
    records = [
        {
            "step": s,
            "train/loss": 2.0 / s,
            "train/cell_accuracy": None if s < 3 else 0.5,
        }
        for s in range(1, 6)
    ]
    records[-1] |= {"eval/cell_accuracy": 0.25, "eval/exact_accuracy": 0.0}
    lines = "".join(json.dumps(r) + "\n" for r in records)
    (tmp_path / "metrics.jsonl").write_text(lines)
    return tmp_path


def test_curves_are_drawn_from_the_file_alone(workdir, tmp_path):
    pytest.importorskip("matplotlib")
    out = tmp_path / "curves.png"
    plot_curves([workdir, workdir], out, givens=0.3)
    assert out.read_bytes()[:4] == b"\x89PNG"
    assert [r["step"] for r in read_metrics(workdir)] == [1, 2, 3, 4, 5]


def test_a_line_that_is_still_being_written_is_left_out(workdir):
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "train/lo')
    assert [r["step"] for r in read_metrics(workdir)] == [1, 2, 3, 4, 5]


def test_the_command_ends_in_one_line_where_there_is_nothing_to_draw(tmp_path):
    pytest.importorskip("matplotlib")
    line = [sys.executable, "-m", "trm_jax.inspect.plots", "x.png", str(tmp_path)]
    result = subprocess.run(line, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith("python -m trm_jax.inspect.plots: error: ")
    assert "metrics.jsonl" in last
    assert "Traceback" not in result.stderr
