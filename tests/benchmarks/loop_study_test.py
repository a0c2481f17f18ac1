# SPDX-License-Identifier: Apache-2.0
"""Tests of the table and the figure of the loop study, from made-up measures."""

import json

import pytest

from benchmarks import loop_study


def measured(exact, verdict):
    """A run of 32 loops that is `exact` up to loop 8, and half as exact later."""
    loops = [
        {"loop": k, "exact": exact if k <= 8 else exact / 2, "norm": 2.0, "entropy": 1}
        for k in range(1, 33)
    ]
    return {"loops": loops, "verdict": verdict, "rows": 512, "commits": ["abcdefghij"]}


@pytest.fixture
def out(tmp_path):
    runs = {
        "feedback.mamba2-0": measured(0.5, "static"),
        "feedback.mamba2-1": measured(0.25, "drift"),
        "trm.mamba2-0": measured(1.0, "settled"),
    }
    (tmp_path / "dynamics").mkdir()
    for number, (name, run) in enumerate(runs.items()):
        (tmp_path / "dynamics" / f"{name}.json").write_text(json.dumps(run))
        result = {"date": f"2026-01-0{1 + number}", "processor": "a chip"}
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    return tmp_path


def test_the_table_has_the_means_over_seeds_and_counts_verdicts(out):
    lines = loop_study.table(loop_study.by_arm(out)).splitlines()
    first = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert first[:9] == ["feedback.mamba2", "2", *["37.5"] * 4, *["18.8"] * 3]
    assert first[9:11] == ["1", "2"]
    assert first[-1] == "1 drift, 1 static"
    assert lines[3].startswith("| trm.mamba2 | 1 | 100.0 |")
    assert "| exact, 8 | exact, 10 | exact, 16 |" in lines[0]
    notes = lines[-3]
    assert "on 512 test puzzles" in notes
    assert notes.endswith(
        "Trained: 2026-01-01 to 2026-01-03, on a chip; commits: abcdefg."
    )


def test_the_command_writes_table_and_figure(out, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("sys.argv", ["loop_study.py", f"--out={out}"])
    loop_study.main()
    assert capsys.readouterr().out == (out / "dynamics.md").read_text()
    assert (out / "dynamics.png").read_bytes()[:4] == b"\x89PNG"
