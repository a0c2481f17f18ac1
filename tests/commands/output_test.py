# SPDX-License-Identifier: Apache-2.0
"""Commands whose standard output is closed, full, or no longer read."""

import os
import subprocess
import sys

import pytest

from tests.helpers.runs import ROOT, call_here
from trm_jax.commands import solve

CHECK = ["-m", "data_pipeline.check", "sudoku", "tests/data_pipeline/bad/sudoku_ok.csv"]
CONVERT = ["-m", "data_pipeline.convert", CHECK[-1]]
SETTINGS = ["-m", "trm_jax.commands.settings"]
HELP = ["train.py", "--help"]
DRY_RUN = ["train.py", "--config=configs/smoke.py", "--dry_run"]
FULL = "error: standard output cannot be written: No space left on device\n"


def run(arguments, where):
    """Run a command with its output `where`; return its code and its errors."""
    line = [sys.executable, *arguments]
    if where == "closed":
        line = ["sh", "-c", 'exec "$@" >&-', "sh", *line]
    read, write = os.pipe()
    os.close(read)  # the reader has left
    out = write if where == "unread" else os.open("/dev/full", os.O_WRONLY)
    done = subprocess.run(
        line, stdout=out, stderr=subprocess.PIPE, text=True, check=False, cwd=ROOT
    )
    os.close(write)
    if out != write:
        os.close(out)
    return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        CHECK,
        HELP,
        pytest.param(CONVERT, marks=pytest.mark.slow),
        pytest.param(SETTINGS, marks=pytest.mark.slow),
        pytest.param(DRY_RUN, marks=pytest.mark.slow),
    ],
    ids=["check", "help", "convert", "settings", "dry_run"],
)
@pytest.mark.parametrize("where", ["closed", "unread", "full"])
def test_output_that_cannot_be_written_is_told_in_one_line(arguments, where, tmp_path):
    if arguments is CONVERT:
        arguments = [*CONVERT, str(tmp_path / "out.csv")]
    expected = (2, FULL) if where == "full" else (0, "")
    assert run(arguments, where) == expected


@pytest.mark.slow
@pytest.mark.parametrize("where", ["closed", "unread", "full"])
def test_a_run_and_its_evaluation_need_no_output(where, tmp_path):
    small = {"train.steps": 2, "train.batch_size": 16, "mesh.data": 1}
    flags = [f"--config.{key}={value}" for key, value in small.items()]
    folder = f"--workdir={tmp_path}"
    code, _ = run(["train.py", "--config=configs/smoke.py", *flags, folder], where)
    assert code == 0
    assert run(["eval.py", folder], where)[0] == 0
    assert (tmp_path / "eval" / "step_2.json").exists()


@pytest.mark.parametrize("unseen", ["\u00a0", "\u200b", "\u3000", "\t", "\udcff"])
def test_characters_that_cannot_be_seen_are_escaped_in_messages(unseen, tmp_path):
    done = call_here(solve.main, f"--workdir={tmp_path}/a{unseen}b")
    assert done.returncode == 2
    escaped = ascii(unseen)[1:-1]
    assert f"a{escaped}b/config.json: not found" in done.stderr
    done = run([*CHECK[:-1], f"a{unseen}b.csv"], "unread")
    assert done == (2, f"error: a{escaped}b.csv: not found\n")
