# SPDX-License-Identifier: Apache-2.0
import json
import subprocess
import sys

import numpy as np
import pytest

from trm_jax.errors import ConfigError
from trm_jax.evaluation.coverage import vote_report
from trm_jax.evaluation.voting import Ballots
from trm_jax.inspect.vote_plots import plot_votes, read_reports

# The correct answer of four test inputs: first, second, none; the last has no votes.
BALLOTS = Ballots(
    question=np.array([0, 1, 1, 2, 2, 2]),
    row=np.arange(6),
    votes=np.array([4, 3, 1, 2, 1, 1]),
    mean_q=np.full(6, 0.5),
    rank=np.array([0, 0, 1, 0, 1, 2]),
)
RIGHT = np.array([1, 0, 1, 0, 0, 0], bool)


def write_report(workdir, step, right=RIGHT, pooled=(), candidates=6):
    report = vote_report(
        Ballots(*(values[:candidates] for values in BALLOTS)),
        right[:candidates],
        np.arange(4),
        weights="ema",
        votes=4,
        pooled_steps=[*pooled, step],
        ks=(1, 2, 10),
    )
    folder = workdir / "eval"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"step_{step}.json").write_text(json.dumps(report))


@pytest.fixture
def runs(tmp_path):
    """Two runs with step names that do not sort like their numbers; one is pooled."""
    first, second = tmp_path / "first", tmp_path / "second"
    write_report(first, 1000)
    write_report(first, 90, right=np.zeros(6, bool))
    write_report(second, 500, pooled=[90], candidates=3)  # none for the third input
    (first / "eval" / "step_7.json").write_text('{"step": 7, "exact_accuracy": 0.5}')
    return [first, second]


@pytest.fixture
def axes(runs, tmp_path, drawn):
    """The panels of the figure, in 2 rows of `runs + 1`."""
    plot_votes(runs, tmp_path / "votes.png")
    return np.reshape(drawn[0].axes, (2, 3))


def lines_of(axis):
    return {
        line.get_label(): line.get_xydata().tolist()
        for line in axis.get_lines()
        if not line.get_label().startswith("_")
    }


def test_curves_run_through_the_evaluations_in_order(axes):
    assert lines_of(axes[0, 0]) == {
        "pass@10": [[90, 0], [1000, 50]],
        "pass@2": [[90, 0], [1000, 50]],
        "pass@1": [[90, 0], [1000, 25]],
    }
    assert axes[0, 0].get_title() == "first"
    assert lines_of(axes[0, 1])["pass@1"] == [[500, 25]]


def test_evaluations_during_training_are_lines(runs, tmp_path, drawn):
    records = [
        {"step": 10, "train/loss": 1.0},
        {"step": 20, "eval/pass@1": 0.25, "eval/pass@2": 0.5, "eval/pass@10": 0.5},
        {"step": 30, "eval/pass@1": 0.5, "eval/pass@2": 0.75, "eval/pass@10": 1.0},
    ]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (runs[0] / "metrics.jsonl").write_text(lines)
    plot_votes(runs, tmp_path / "votes.png")
    axis = drawn[0].axes[0]
    solid = [line for line in axis.lines if line.get_linestyle() == "-"]
    assert [line.get_xydata().tolist() for line in solid if len(line.get_xdata())] == [
        [[20, 50], [30, 100]],
        [[20, 50], [30, 75]],
        [[20, 25], [30, 50]],
    ]


def test_pooled_evaluations_are_marked(axes):
    def overdrawn(axis):
        return [
            line.get_xydata().tolist()
            for line in axis.get_lines()
            if line.get_label().startswith("_") and line.get_xydata().size
        ]

    assert overdrawn(axes[0, 1]) == [[[500, 50]], [[500, 50]], [[500, 25]]]
    assert overdrawn(axes[0, 0]) == []
    assert "pooled" in axes[0, 1].get_title()
    assert list(lines_of(axes[0, 2])) == ["first", "second, steps pooled"]


def test_the_last_evaluation_is_drawn_over_k_with_its_band(axes, runs):
    axis = axes[0, 2]
    assert lines_of(axis)["first"] == [[1, 25], [2, 50], [10, 50]]
    assert axis.get_xscale() == "log"
    report = read_reports(runs[0])[-1]
    low, high = np.transpose([s["ci95"] for s in report["pass_at"].values()])
    band = axis.collections[0].get_paths()[0].vertices
    np.testing.assert_allclose(np.unique(band[:, 1]), np.unique(100 * np.r_[low, high]))


def test_all_curves_share_one_scale(axes):
    assert len({axis.get_ylim() for axis in axes[0]}) == 1


def test_test_inputs_stand_at_their_coverage_and_selection_by_outcome(axes):
    points = {
        group.get_label(): group.get_offsets().tolist()
        for group in axes[1, 0].collections
    }
    expected = {
        "right answer first (1)": [[1, 1]],
        "found, not first (1)": [[2, 0.75]],
        "not found (2)": [[3, 0.5], [1, 0]],
    }
    assert points.keys() == expected.keys()
    for label, places in expected.items():
        np.testing.assert_allclose(points[label], places, rtol=0.05, atol=0.02)
    assert axes[1, 0].get_xlim() == axes[1, 1].get_xlim()


def test_bars_part_the_test_inputs_by_outcome(axes):
    bars = [
        (bar.get_x(), bar.get_width(), round(bar.get_y() + bar.get_height() / 2))
        for bar in axes[1, 2].patches
    ]
    widths = [(0, 25), (25, 25), (50, 50)]
    assert bars == [(*width, run) for run in (0, 1) for width in widths]


def test_the_figure_is_written_and_reports_without_votes_are_passed_over(
    runs, tmp_path
):
    pytest.importorskip("matplotlib")
    out = tmp_path / "votes.png"
    plot_votes(runs[:1], out)
    assert out.read_bytes()[:4] == b"\x89PNG"
    assert [report["step"] for report in read_reports(runs[0])] == [90, 1000]


def test_a_run_without_votes_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r".eval holds no step_"):
        read_reports(tmp_path)
    with pytest.raises(ConfigError, match="nothing_here: expected the workdir"):
        read_reports(tmp_path / "nothing_here")


def test_the_command_ends_in_one_line_where_there_is_nothing_to_draw(tmp_path):
    command = [
        sys.executable,
        "-m",
        "trm_jax.inspect.vote_plots",
        str(tmp_path),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith(
        "python -m trm_jax.inspect.vote_plots: error"
    )
    assert "Traceback" not in result.stderr
