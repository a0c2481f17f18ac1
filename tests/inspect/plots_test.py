# SPDX-License-Identifier: Apache-2.0
import json
import math
import re

import numpy as np
import pytest

from tests.helpers.runs import call
from trm_jax.errors import ConfigError, SaveError
from trm_jax.inspect.plots import plot_curves
from trm_jax.inspect.run_records import names_of, read_groups, read_metrics

MINUTE, FLOPS = 60, 10**12


def write_run(folder, *, seed=0, lr=1.0, steps=5, loss=2.0):
    """A run that took a minute and 1e12 FLOPs per step."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"seed": seed, "optim": {"lr": lr}, "data": {"seed": seed, "task": "t"}}
    (folder / "config.json").write_text(json.dumps(config | {"checksum": str(seed)}))
    records = [
        {
            "step": s,
            "train/loss": loss / s,
            "train/cell_accuracy": None if s < 3 else 0.5,
            "train/seconds": s * MINUTE * (1 + seed),
            "train/flops": s * FLOPS,
        }
        for s in range(1, steps + 1)
    ]
    records[-1] |= {"eval/cell_accuracy": 0.25, "eval/exact_accuracy": 0.5}
    lines = "".join(json.dumps(r) + "\n" for r in records)
    (folder / "metrics.jsonl").write_text(lines)
    return folder


@pytest.fixture
def workdir(tmp_path):
    return write_run(tmp_path / "run")


def curves(axis):
    """The lines of an axis that have points, as lists of x and y."""
    points = [np.transpose(line.get_xydata()).tolist() for line in axis.lines]
    return [pair for pair in points if pair[0]]


def test_curves_are_drawn_from_the_files(workdir, tmp_path, drawn):
    out = tmp_path / "curves.png"
    plot_curves([workdir], out, givens=0.3)
    assert out.read_bytes()[:4] == b"\x89PNG"
    loss, cells, exact = drawn[0].axes
    assert curves(loss) == [[[1, 2, 3, 4, 5], [2, 1, 2 / 3, 0.5, 0.4]]]
    (steps, values), evaluated, givens = curves(cells)
    assert values[2:] == [50, 50, 50]
    assert all(map(math.isnan, values[:2]))
    assert evaluated == [[5], [25]]
    assert givens[1] == [30, 30]
    assert curves(exact) == [[[5], [50]]]
    assert [a.get_xlabel() for a in drawn[0].axes] == ["training step"] * 3
    assert cells.get_ylabel() == "cell accuracy, %"


def test_seeds_of_one_config_are_a_mean_in_a_band(tmp_path, drawn):
    runs = [
        write_run(tmp_path / "narrow-0", loss=2.0),
        write_run(tmp_path / "narrow-1", seed=1, loss=4.0, steps=4),
        write_run(tmp_path / "wide-0", lr=2.0),
    ]
    plot_curves(runs, tmp_path / "curves.svg", x="all")
    by_step, by_minute, by_flops = np.reshape(drawn[0].axes, (3, 3))[:, 0]
    mean = [3, 1.5, 1, 0.75]
    assert curves(by_step)[0] == [[1, 2, 3, 4], mean]
    band = by_step.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (0.5, 4)
    assert len(by_step.collections) == 1
    assert curves(by_minute)[0] == [[1.5, 3, 4.5, 6], mean]  # means of 1 and 2 minutes
    assert curves(by_flops)[0][0] == [1, 2, 3, 4]
    assert by_flops.get_xlabel() == "model TFLOPs of training"
    texts = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert texts == ["narrow (2 seeds)", "wide-0", "training", "evaluation"]


def test_folders_of_equal_names_are_told_apart(tmp_path):
    a, b, c = (tmp_path / name for name in ("a/x/run", "b/x/run", "c/other"))
    assert names_of([a, b, c]) == ["a/x/run", "b/x/run", "other"]
    assert names_of([a]) == ["run"]
    with pytest.raises(ConfigError, match="run is given twice"):
        names_of([a, b, tmp_path / "a/x/../x/run"])


def test_runs_without_a_config_are_not_grouped(tmp_path):
    runs = [write_run(tmp_path / name) for name in ("a", "b")]
    assert [group.label for group in read_groups(runs)] == ["a ... (2 seeds)"]
    for run in runs:
        (run / "config.json").unlink()
    assert [group.label for group in read_groups(runs)] == ["a", "b"]


def test_time_that_an_older_version_did_not_record_is_refused(workdir, tmp_path):
    path = workdir / "metrics.jsonl"
    path.write_text(path.read_text().replace('"train/seconds": 180', '"x": 0'))
    with pytest.raises(ConfigError, match=r"no train/seconds at step 3.*--x=step"):
        plot_curves([workdir], tmp_path / "c.png", x="minutes")


def test_a_line_that_is_still_being_written_is_left_out(workdir):
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "train/lo')
    assert [r["step"] for r in read_metrics(workdir)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "has no whole line"),
        ('{"step": 1', "has no whole line"),
        ('{"step": 1}\n{"st\n{"step": 3}\n', r"line 2: expected a JSON .*'{\"st'"),
        ('{"step": 1}\n[1]\n', "line 2"),
        ('{"step": 1}\n\n{"step": 3}\n', "line 2"),
        ('{"step": 2}\n{"step": 2}\n', "line 2: .* a step after 2"),
        ('{"step": "2"}\n', "line 1"),
        (b"\xff\n".decode("latin1"), "line 1"),
    ],
)
def test_a_broken_file_is_named_with_its_line(workdir, content, problem):
    (workdir / "metrics.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=rf"metrics.jsonl.*{problem}"):
        read_metrics(workdir)


def test_pictures_are_the_same_bytes_and_of_known_kinds(workdir, tmp_path):
    pytest.importorskip("matplotlib")
    for suffix in ("svg", "pdf"):
        paths = [tmp_path / f"{n}.{suffix}" for n in (1, 2)]
        for path in paths:
            plot_curves([workdir], path)
        assert paths[0].read_bytes() == paths[1].read_bytes()
    with pytest.raises(ConfigError, match=r"c.jpg: expected .*\.png, \.svg, \.pdf"):
        plot_curves([workdir], tmp_path / "c.jpg")
    with pytest.raises(SaveError, match="absent/c.png cannot be written"):
        plot_curves([workdir], tmp_path / "absent" / "c.png")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["{}"], "metrics.jsonl cannot be read: No such file"),
        (["{}/absent"], "absent: expected the workdir of a run$"),
        (["old.png", "{}"], "old.png: expected .*; --out=FILE names the picture"),
    ],
)
def test_the_command_ends_in_one_line_where_there_is_nothing_to_draw(
    tmp_path, words, problem
):
    pytest.importorskip("matplotlib")
    line = [word.format(tmp_path) for word in words]
    result = call("-m", "trm_jax.inspect.plots", *line)
    assert result.returncode == 2
    last = result.stderr.splitlines()[-1]
    assert last.startswith("python -m trm_jax.inspect.plots: error: ")
    assert re.search(problem, last)
    assert "Traceback" not in result.stderr
