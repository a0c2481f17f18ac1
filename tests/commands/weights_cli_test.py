# SPDX-License-Identifier: Apache-2.0
"""Commands that read and write weights: export, train --init_from, eval of a file."""

import json
import shutil

import jax
import numpy as np
import pytest

import trm_jax
from tests.commands.cli_test import refused
from tests.helpers.compiled_once import run_commands_here
from tests.helpers.runs import call_here, metric_lines, short_flags
from trm_jax import api
from trm_jax.commands import eval as eval_command
from trm_jax.commands import export, train
from trm_jax.loading import open_weights
from trm_jax.training.build import build
from trm_jax.warm_start import WarmStart
from trm_jax.weights import exchange
from trm_jax.weights.tensors import weights_digest

FLAGS = {"train.log_every": 1, "train.eval_every": 0, "train.checkpoint_every": 2}


@pytest.fixture(autouse=True)
def commands_here(monkeypatch):
    run_commands_here(monkeypatch)


def trained(folder, steps=4, *flags, **overrides):
    settings = FLAGS | {"train.steps": steps} | overrides
    line = short_flags(**settings)
    return call_here(train.main, f"--workdir={folder}", *line, *flags)


def done(result):
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        run_commands_here(patch)
        folder = tmp_path_factory.mktemp("run") / "workdir"
        done(trained(folder))
    return folder


@pytest.fixture(scope="module")
def exported(run):
    """The averaged weights of the run in a folder."""
    folder = run.with_name("weights")
    assert "written to" in done(call_here(export.main, run, folder)).stdout
    return folder


def test_export_writes_what_the_run_holds(run, exported, tmp_path):
    assert weights_digest(open_weights(exported)) == weights_digest(open_weights(run))
    done(call_here(export.main, run, tmp_path / "raw", "--weights=raw", "--step=2"))
    raw = open_weights(tmp_path / "raw")
    assert (raw.record["step"], raw.record["weights"]) == (2, "raw")
    expected = open_weights(run, step=2, weights="raw")
    assert weights_digest(raw) == weights_digest(expected)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["raw"]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["SOURCE"], "OUT is missing"),
        ([], "SOURCE is missing"),
        (["RUN", "RUN"], "exists; choose a new name"),
        (
            ["RUN", "OUT", "--format=torch"],
            "model.swiglu.width = 64, but",
        ),
        (["RUN", "OUT", "--step=3"], "no checkpoint of step 3; found: 2, 4"),
        (["nosuch", "OUT"], "nosuch: no such file"),
        (["RUN", "OUT", "--format=npz"], "--format"),
    ],
)
def test_what_cannot_be_exported_is_one_clear_message(run, tmp_path, flags, named):
    places = {"RUN": str(run), "OUT": str(tmp_path / "out")}
    refused(call_here(export.main, *[places.get(f, f) for f in flags]), named)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_run_starts_from_weights_and_remembers_them(run, exported, tmp_path):
    folder = tmp_path / "new"
    result = done(trained(folder, 2, f"--init_from={exported}"))
    assert "step 4; puzzle table: keep" in result.stdout
    record = json.loads((folder / "init.json").read_text())
    assert record["sha256"] == weights_digest(open_weights(exported))
    assert record["source"] == str(exported)
    # No flag, the same one, and the same weights in another place are accepted.
    done(trained(folder))
    done(trained(folder, 4, f"--init_from={exported}"))
    done(trained(folder, 4, f"--init_from={run}"))
    refused(
        trained(folder, 4, f"--init_from={run / 'checkpoints' / '2'}"),
        "init.json: this run began with other weights",
        "leave --init_from out",
    )
    refused(
        trained(folder, 4, f"--init_from={exported}", "--init_table=reset"),
        "(table keep",
    )
    lines = map(json.loads, (folder / "runs.jsonl").read_text().splitlines())
    assert [(line["from_step"], line["init"]["step"]) for line in lines] == [
        *((step, 4) for step in (0, 2, 4, 4)),
    ]
    assert trm_jax.load(folder).step == 4
    third = tmp_path / "third"
    done(trained(third, 2, f"--init_from={folder}"))
    chain = open_weights(third).record["provenance"]["init"]
    assert (chain["source"], chain["step"]) == ("new", 4)
    assert (chain["init"]["source"], chain["init"]["step"]) == (exported.name, 4)
    assert chain["init"]["init"] is None
    (folder / "init.json").unlink()
    refused(trained(folder), "init.json: not found, but runs.jsonl says that")


def test_the_first_state_has_the_given_weights_and_nothing_else(
    run, exported, tmp_path
):
    config, sizes = (open_weights(run).record[k] for k in ("config", "sizes"))
    built = build(config, sizes)
    start = WarmStart(tmp_path, str(exported), "keep")
    start.prepare(built, has_checkpoint=False)
    state, fresh, model = start.state(built), built.init(), trm_jax.load(exported)
    assert int(state.step) == 0
    as_numpy = (state.params, state.ema_params, model.params)
    for a, b, c in zip(*map(jax.tree.leaves, as_numpy), strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, c)
        places = [x.addressable_data(0).unsafe_buffer_pointer() for x in (a, b)]
        assert places[0] != places[1]  # both are donated
    np.testing.assert_array_equal(state.puzzle_table, model.table)
    np.testing.assert_array_equal(state.constants["y"], model.constants["y"])
    assert (fresh.constants["y"] == state.constants["y"]).all()  # the same seed
    for a, b in zip(
        *map(jax.tree.leaves, (state.opt_state, fresh.opt_state)), strict=True
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_start_from_weights_learns_on_from_them(run, exported, tmp_path):
    done(trained(tmp_path / "warm", 2, f"--init_from={exported}"))
    done(trained(tmp_path / "cold", 2))
    warm, cold = (metric_lines(tmp_path / k)[0]["train/loss"] for k in ("warm", "cold"))
    assert warm != cold


def test_a_start_that_was_cut_short_is_taken_up(exported, tmp_path, monkeypatch):
    folder = tmp_path / "new"
    with monkeypatch.context() as patch:
        patch.setattr(api, "_run", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            trained(folder, 2, f"--init_from={exported}")
    assert not [*folder.glob("checkpoints/*[0-9]")]
    copy = shutil.copytree(folder, tmp_path / "copy")
    result = done(trained(folder, 2))  # without the flag, from the recorded place
    assert "puzzle table: keep" in result.stdout
    record = json.loads((copy / "init.json").read_text())
    moved = exported.rename(exported.with_name("moved"))
    try:
        refused(trained(copy, 2), f"{record['source']}: No such file")
    finally:
        moved.rename(exported)


def test_a_run_that_began_without_weights_takes_none(run, exported):
    refused(
        trained(run, 4, f"--init_from={exported}"), "did not begin with --init_from"
    )
    assert not (run / "init.json").exists()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (
            ["--init_from=SOURCE", "--config.model.d_model=64"],
            "does not fit the config",
        ),
        (["--init_from=NONE"], "NONE: no such file or folder"),
        (["--init_table=reset"], "--init_table=reset goes with --init_from"),
        (["--init_table=half", "--init_from=SOURCE"], "--init_table"),
        (["--init_from=SOURCE", "--dry_run"], "--dry_run does not"),
    ],
)
def test_wrong_starts_leave_no_workdir(exported, tmp_path, flags, named):
    line = [flag.replace("SOURCE", str(exported)) for flag in flags]
    refused(trained(tmp_path / "new", 2, *line), named)
    assert not (tmp_path / "new").exists()


def report(path):
    found = json.loads(path.read_text())
    return {k: v for k, v in found.items() if k not in ("rows_per_s", "data")}, found


def test_a_file_is_evaluated_like_its_run(run, exported, tmp_path):
    done(call_here(eval_command.main, f"--workdir={run}"))
    out = tmp_path / "deep" / "report.json"
    out.parent.mkdir()
    flags = f"--weights_file={exported}", f"--out={out}"
    done(call_here(eval_command.main, *flags))
    (expected, of_run), (found, of_file) = map(
        report, (run / "eval" / "step_4.json", out)
    )
    assert found == expected
    assert of_file["data"]["sha256"] == of_run["data"]["sha256"]
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    # A config of one's own takes the place of the recorded one.
    own = short_flags(**{"data.test_puzzles": 4, "eval.supervision_steps": 2})
    done(call_here(eval_command.main, *flags, *own))
    assert report(out)[0]["supervision_steps"] == 2


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--weights_file=FILE"], "--out=FILE.json is missing"),
        (["--out=x.json", "--workdir=RUN"], "--out go with --weights_file"),
        (
            ["--workdir=RUN", *short_flags()],
            "--config and --out go with --weights_file",
        ),
        (
            ["--weights_file=FILE", "--workdir=RUN", "--out=x.json"],
            "exclude each other",
        ),
        (["--weights_file=FILE", "--step=4", "--out=x.json"], "--step exclude each"),
        (["--weights_file=FILE", "--weights=raw", "--out=x"], "holds the ema weights"),
        (["--weights_file=NONE", "--out=x"], "NONE: no such file or folder"),
        (
            ["--weights_file=FILE", "--out=x", "--config.seed=1"],
            "config.seed",
        ),
        (
            ["--weights_file=FILE", "--out=x", *short_flags(**{"model.d_model": 64})],
            "does not fit the config",
        ),
    ],
)
def test_wrong_flags_of_an_evaluation_are_named(run, exported, flags, named):
    places = {"FILE": str(exported), "RUN": str(run)}
    line = [f.replace("=FILE", f"={places['FILE']}") for f in flags]
    line = [f.replace("=RUN", f"={places['RUN']}") for f in line]
    refused(call_here(eval_command.main, *line), named)


def test_other_puzzles_than_those_of_the_run_are_noticed(exported, tmp_path):
    bundle = open_weights(exported)
    bundle.record["config"]["data"]["seed"] = 5
    exchange.write(tmp_path / "other", bundle)
    line = f"--weights_file={tmp_path / 'other'}", f"--out={tmp_path / 'x.json'}"
    refused(call_here(eval_command.main, *line), "has changed since the run began")
