# SPDX-License-Identifier: Apache-2.0
import json

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
