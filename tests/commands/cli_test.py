# SPDX-License-Identifier: Apache-2.0
"""train.py and eval.py as a user calls them: flags, messages, exit codes, files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import pytest

from tests.helpers.compiled_once import run_commands_here
from tests.helpers.runs import (
    ROOT,
    call,
    call_here,
    command,
    edit_config,
    metric_lines,
    short_flags,
)
from tests.helpers.timing import seconds_of_children
from trm_jax.commands import eval as eval_command
from trm_jax.commands import solve, train

SCRIPTS = ["train.py", "eval.py", "solve.py"]
SMOKE = "--config=configs/smoke.py"
SHORT = short_flags(
    **{"train.log_every": 5, "train.eval_every": 20, "train.checkpoint_every": 20}
)


@pytest.fixture(autouse=True)
def commands_here(monkeypatch):
    run_commands_here(monkeypatch)


def refused(result, *named):
    """Check for exit code 2 and one message that names the place, not a traceback."""
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert result.stderr.startswith("error: ")
    for text in named:
        assert text in result.stderr, result.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "deep" / "workdir"
    result = call("train.py", f"--workdir={folder}", *SHORT)
    assert result.returncode == 0, result.stderr
    return folder, result


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS)
def test_help_answers_in_3_seconds(script):
    before = seconds_of_children()
    result = call(script, "--help")
    assert seconds_of_children() - before < 3
    assert result.returncode == 0
    assert "--workdir" in result.stdout
    assert f"python {script}" in result.stdout


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (
            [SMOKE, "--config.rule.trm.l_cycle=4"],
            ["--config.rule.trm.l_cycle:", "did you mean --config.rule.trm.l_cycles?"],
        ),
        ([SMOKE, "--config.modle.d_model=4"], ["--config.modle", "--config.model?"]),
        ([SMOKE, "--config.rule.trm.l_cycles=abc"], ["--config.rule.trm.l_cycles=abc"]),
        ([SMOKE, "--config.rule.trm.l_cycles=0"], ["trm.l_cycles = 0", ">= 1"]),
        ([SMOKE, "--config.model.l_cycles=4"], ["has moved to rule.trm.l_cycles"]),
        ([SMOKE, "--config.model.layers=('attn',)"], ["'attn'", "attention, swiglu"]),
        (
            [SMOKE, "--config.rule.trm.cell_loss=hinge"],
            ["rule.trm.cell_loss = 'hinge'", "stablemax"],
        ),
        ([SMOKE, "--config.data.maze.side=7"], ["data.maze.side = 7", "'sudoku'"]),
        (
            [SMOKE, "--config.model.attention.num_heads=4"],
            ["model.attention.num_heads = 4", "nothing in this run reads"],
        ),
        ([SMOKE, "--config.train.micro_batches=5"], ["train.micro_batches = 5"]),
        ([SMOKE, "--config.data.source=cvs"], ["data.source = 'cvs'", "csv"]),
        ([SMOKE, "--config.mesh.data=99"], ["mesh.data = 99"]),
        ([SMOKE, "--config.train.micro_batches=0"], ["train.micro_batches = 0"]),
        ([SMOKE, "--config.train.keep_checkpoints=0"], ["keep_checkpoints = 0"]),
        ([SMOKE, "--config.eval.batch_size=0"], ["eval.batch_size = 0"]),
        ([SMOKE, "--config.mesh.data=2", "--config.eval.batch_size=63"], ["= 63 is"]),
        ([SMOKE, "--config.seed=4294967296"], ["seed = 4294967296"]),
        (
            [SMOKE, "--config.seed=1", "--config.model.d_modl=3"],
            ["--config.model.d_modl"],
        ),
        ([SMOKE, "--wrokdir=x"], ["wrokdir"]),
        ([SMOKE, "stray"], ["'stray'"]),
        (["--config=configs/smok.py"], ["configs/smok.py"]),
        (["--config=configs/smoke.py:mlpt"], ["'mlpt'", "mlp_t, attention"]),
        ([], ["--config"]),
    ],
)
def test_wrong_flags_end_in_one_clear_message(tmp_path, flags, named):
    folder = tmp_path / "w"
    refused(call_here(train.main, f"--workdir={folder}", *flags), *named)
    assert not folder.exists()


def test_a_workdir_is_needed():
    refused(call_here(train.main, SMOKE), "--workdir")
    refused(call_here(eval_command.main), "--workdir")


@pytest.mark.parametrize(
    "script",
    ["train.py", *(pytest.param(s, marks=pytest.mark.slow) for s in SCRIPTS[1:])],
)
def test_a_process_ends_with_the_message_and_code_of_its_command(script):
    result = call(script, "--wrokdir=x")
    refused(result, "wrokdir", "Did you mean: workdir")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_data_that_cannot_be_had_names_the_keys_to_set(tmp_path):
    where = f"--workdir={tmp_path / 'w'}"
    paper = "--config=configs/sudoku_extreme.py"
    env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    keys = ("data.source=csv", "data.train=PATH", "data.test=PATH")
    refused(call("train.py", where, paper, env=env), *keys)
    csv = "--config.data.source=csv"
    refused(call_here(train.main, where, paper, csv), "data.train")
    missing = tmp_path / "missing.csv"
    flags = [csv, f"--config.data.train={missing}", f"--config.data.test={missing}"]
    refused(call_here(train.main, where, paper, *flags), f"{missing}: not found")


def test_a_malformed_row_is_refused_with_its_place(tmp_path):
    bad = ROOT / "tests/data_pipeline/bad/sudoku_illegal_char.csv"
    flags = [f"--config.data.train={bad}", f"--config.data.test={bad}"]
    config = "--config=configs/sudoku_cpu.py"
    folder = tmp_path / "w"
    result = call_here(train.main, f"--workdir={folder}", config, *flags)
    refused(result, "sudoku_illegal_char.csv", "row 4 (line 5)", "'x'")
    assert not folder.exists()


def test_dry_run_reports_costs_and_writes_nothing(tmp_path):
    folder = tmp_path / "w"
    flags = ["--config=configs/sudoku_extreme.py", "--dry_run", f"--workdir={folder}"]
    result = call_here(train.main, *flags, "--config.train.batch_size=8")
    report = json.loads(result.stdout)
    assert report["parameters"] == 5_028_866
    assert report["puzzle_table"] == {"rows": 1, "width": 512, "bytes": 2048}
    assert 0.33e12 < report["flops_per_step"] < 0.35e12
    assert report["memory_bytes"]["temporaries_per_device"] > 1e8
    assert report["config"]["rule"]["trm"]["l_cycles"] == 6
    assert not folder.exists()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_config_decides_the_precision_whatever_was_set(dtype, monkeypatch):
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", dtype == "float32")
    try:
        flags = [*SHORT, f"--config.model.dtype={dtype}", "--dry_run"]
        result = call_here(train.main, *flags)
    finally:
        jax.config.update("jax_enable_x64", before)
    assert result.returncode == 0, result.stderr
    bits = {"float32": 4, "float64": 8}[dtype]
    # The carry holds y and z (8 rows, 17 positions, width 32) and little else.
    carried = json.loads(result.stdout)["memory_bytes"]["carry"]
    assert 0 < carried - 2 * 8 * 17 * 32 * bits < 8 * 17 * 32


@pytest.mark.parametrize(
    "imported", ["import jax\n", pytest.param("", marks=pytest.mark.slow)]
)
def test_compilations_are_kept_also_where_jax_is_imported_already(tmp_path, imported):
    program = (
        f"{imported}from trm_jax.commands import shell\n"
        "def main(argv):\n"
        "    import jax\n"
        "    print(jax.config.jax_compilation_cache_dir)\n"
        "    return 0\n"
        "shell.run(main)"
    )
    env = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    for kept in (str(tmp_path / "trm_jax"), "elsewhere"):
        env.pop("JAX_COMPILATION_CACHE_DIR", None)
        if kept == "elsewhere":  # the user's own choice is kept
            env["JAX_COMPILATION_CACHE_DIR"] = kept
        line = [sys.executable, "-c", program]
        out = subprocess.check_output(line, env=env, cwd=ROOT, text=True)
        assert out.strip() == kept


def test_a_run_leaves_config_data_identity_and_one_line_per_logged_step(run):
    folder, result = run
    config = json.loads((folder / "config.json").read_text())
    assert config["train"]["steps"] == 20
    identity = json.loads((folder / "dataset.json").read_text())
    assert len(identity["train"]["sha256"]["inputs"]) == 64
    (line,) = (folder / "runs.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["from_step"] == 0
    assert record["versions"]["jax"]
    assert record["devices"]
    lines = metric_lines(folder)
    assert [r["step"] for r in lines] == [5, 10, 15, 20]
    assert {"train/loss", "train/exact_accuracy", "train/cell_accuracy", "lr"} <= set(
        lines[0]
    )
    assert "eval/exact_accuracy" in lines[-1]
    progress = [x for x in result.stdout.splitlines() if x.startswith("step 10/20")]
    assert len(progress) == 1
    assert len(progress[0]) <= 80
    for word in ("loss", "cells", "exact", "/s", "ETA"):
        assert word in progress[0]
    assert result.stderr == ""
    # The output begins with the devices, the model and the data.
    top = result.stdout.split("step 5/20")[0]
    assert max(map(len, top.replace(str(folder), "").splitlines())) <= 80
    for words in ("2 x cpu: data 2", "trm, 2 sublayers", "parameters", "MiB of state"):
        assert words in top
    assert "12 to train on, in 101 form(s); 8 test puzzles" in top
    assert "step 0 of 20" in top
    assert "compiling the training step" in top


def test_eval_writes_a_report(run):
    folder, _ = run
    result = call_here(eval_command.main, f"--workdir={folder}", "--weights=raw")
    assert result.returncode == 0, result.stderr
    report = json.loads((folder / "eval" / "step_20-weights_raw.json").read_text())
    assert report["weights"] == "raw"
    assert report["puzzles"] == 8
    low, high = report["exact_accuracy_95"]
    assert low <= report["exact_accuracy"] <= high
    assert len(report["by_step"]) == 4
    assert sum(row["puzzles"] for row in report["by_clues"]) == 8
    assert "exact accuracy" in result.stdout


def test_eval_by_default_repeats_the_runs_own_last_evaluation(run):
    folder, _ = run
    flags = [f"--workdir={folder}", "--step=20"]
    assert call_here(eval_command.main, *flags).returncode == 0
    report = json.loads((folder / "eval" / "step_20.json").read_text())
    assert report["weights"] == "ema"
    last = metric_lines(folder)[-1]
    for name in ("exact_accuracy", "cell_accuracy", "cell_loss"):
        assert report[name] == last[f"eval/{name}"]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--step=7"], ["step 7", "found: 20"]),
        (["--weights=mean"], ["weights", "ema"]),
        (["--supervision_steps=-1"], ["supervision_steps"]),
        (["--devices=3"], ["mesh.data = 3", "2 device(s)", "--devices=N"]),
        (["--data=none.csv"], ["none.csv", "not found"]),
        (["--data=tests/data_pipeline/bad/sudoku_ok.csv"], ["81 characters found"]),
    ],
)
def test_wrong_eval_flags_end_in_one_clear_message(run, flags, named):
    refused(call_here(eval_command.main, f"--workdir={run[0]}", *flags), *named)


def test_how_a_run_splits_its_batches_does_not_matter_to_eval(run, tmp_path):
    folder = shutil.copytree(run[0], tmp_path / "w")
    edit_config(
        folder, lambda c: c["train"].update(micro_batches=c["train"]["batch_size"])
    )
    result = call_here(eval_command.main, f"--workdir={folder}", "--devices=2")
    assert result.returncode == 0, result.stderr


def test_eval_of_a_folder_that_is_no_workdir(tmp_path):
    result = call_here(eval_command.main, f"--workdir={tmp_path}")
    refused(result, "config.json", "not found")


@pytest.mark.parametrize("module", [eval_command, solve])
def test_workdirs_of_format_1_are_refused(run, tmp_path, module):
    for file in ("config.json", "dataset.json"):
        shutil.copy(run[0] / file, tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["checksum"]  # older versions wrote none
    path.write_text(json.dumps(config))
    refused(
        call_here(module.main, f"--workdir={tmp_path}"), str(path), "has no checksum"
    )


def test_the_same_workdir_resumes_and_another_config_is_refused(run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(run[0], folder)
    where = f"--workdir={folder}"
    again = call_here(train.main, where, *SHORT)
    assert again.returncode == 0
    assert "step 20 of 20" in again.stdout
    other = call_here(train.main, where, *SHORT, "--config.rule.trm.l_cycles=3")
    refused(other, "config.json", "rule.trm.l_cycles: 2 -> 3")
    other = call_here(train.main, where, *SHORT, "--config.data.seed=1")
    refused(other, "data.seed: 0 -> 1")
    # A run that is refused for its data does not change the stored config.
    before = (folder / "config.json").read_text()
    test = ["--config.data.test_puzzles=4", "--config.train.log_every=7"]
    refused(call_here(train.main, where, *SHORT, *test), "data.test_puzzles: 8 -> 4")
    assert (folder / "config.json").read_text() == before
    more = call_here(train.main, where, *SHORT, "--config.train.steps=25")
    assert more.returncode == 0, more.stderr
    assert metric_lines(folder)[-1]["step"] == 25


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_saves_and_ends_with_75(tmp_path, number):
    folder = tmp_path / "w"
    flags = [*SHORT, f"--workdir={folder}", "--config.train.steps=1000000"]
    process = subprocess.Popen(
        command("train.py", *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        assert any(b"step 20/" in line for line in process.stdout), (
            process.stderr.read()
        )
        process.send_signal(number)
        started = time.monotonic()
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 75, err
    assert time.monotonic() - started < 20
    assert b"run again to resume" in out
    assert b"Traceback" not in err
    steps = [int(p.name) for p in (folder / "checkpoints").iterdir()]
    assert max(steps) >= 20


def test_all_checkpoints_damaged_is_an_error_not_a_fresh_start(run, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(run[0], folder)
    for path in (folder / "checkpoints").rglob("manifest.ocdbt"):
        path.write_bytes(b"")
    before = metric_lines(folder)
    # This needs its own process: tasks of failed reads warn when garbage-collected.
    refused(call("train.py", f"--workdir={folder}", *SHORT), "no intact checkpoint")
    assert metric_lines(folder) == before


@pytest.mark.parametrize("stderr", ["open", "closed"])
def test_a_second_signal_ends_a_run_that_does_not_get_to_its_save(stderr):
    # Like a compilation, this is one long call that no Python handler can interrupt.
    stuck = (
        "import hashlib; from trm_jax.commands.stop_signal import StopSignal\n"
        "s = StopSignal()\n"
        "print('ready', flush=True)\n"
        "hashlib.pbkdf2_hmac('sha1', b'', b'', 2**31 - 1)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", stuck],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    if stderr == "closed":  # Ctrl-C also ends a `tee` that reads it
        process.stderr.close()
    process.send_signal(signal.SIGTERM)
    if stderr == "open":
        assert "saving after this step" in process.stderr.readline()
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 75
    if stderr == "open":
        assert "leaving at once" in process.stderr.read()
        process.stderr.close()
    process.stdout.close()
