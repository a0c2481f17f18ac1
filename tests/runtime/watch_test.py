# SPDX-License-Identifier: Apache-2.0
"""--wandb and --profile: what they give, and that they change and end no run."""

import importlib.util
import sys
import types

import pytest

from tests.helpers.compiled_once import run_commands_here
from tests.helpers.runs import call_here, digest, metric_lines, short_flags
from trm_jax.commands import shell, stop_signal, train
from trm_jax.runtime.watch import Watch


class Wandb(types.ModuleType):
    """Stands in for the package: it keeps what it gets, and can be told to fail."""

    def __init__(self, monkeypatch, fails_in=""):
        super().__init__("wandb")
        self.fails_in, self.started, self.logged, self.ended = fails_in, [], [], 0
        self.calls = 0
        find = importlib.util.find_spec
        monkeypatch.setitem(sys.modules, "wandb", self)
        monkeypatch.setattr(
            importlib.util,
            "find_spec",
            lambda name, *a: self if name == "wandb" else find(name, *a),
        )

    def _may_fail(self, name):
        if self.fails_in == name:
            raise RuntimeError("the network is gone")

    def init(self, **kwargs):
        self._may_fail("init")
        self.started.append(kwargs)
        return self

    def log(self, numbers, *, step):
        self.calls += 1
        self._may_fail("log")
        self.logged.append((step, numbers))

    def finish(self):
        self._may_fail("finish")
        self.ended += 1


@pytest.fixture(autouse=True)
def commands_here(monkeypatch):
    run_commands_here(monkeypatch)


@pytest.fixture(scope="module")
def unobserved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unobserved") / "run"
    with pytest.MonkeyPatch.context() as patch:
        run_commands_here(patch)
        assert (
            call_here(train.main, f"--workdir={folder}", *short_flags()).returncode == 0
        )
    return folder


def assert_unchanged(folder, unobserved):
    assert digest(folder) == digest(unobserved)
    assert metric_lines(folder) == metric_lines(unobserved)
    names = {path.name for path in folder.iterdir()} - {"profile"}
    assert names == {path.name for path in unobserved.iterdir()}
    assert (folder / "config.json").read_bytes() == (
        unobserved / "config.json"
    ).read_bytes()


def test_wandb_gets_every_record_of_both_sittings(tmp_path, monkeypatch, unobserved):
    wandb, folder = Wandb(monkeypatch), tmp_path / "run"
    flags = f"--workdir={folder}", "--wandb=lab", *short_flags()
    stop = [False]
    monkeypatch.setattr(stop_signal, "StopSignal", lambda: lambda: stop[0])
    monkeypatch.setattr(
        shell.BAR, "update", lambda k, *_: stop.__setitem__(0, stop[0] or k == 10)
    )
    assert call_here(train.main, *flags).returncode == 75
    monkeypatch.setattr(stop_signal, "StopSignal", lambda: lambda: False)
    assert call_here(train.main, *flags).returncode == 0
    assert_unchanged(folder, unobserved)
    first, second = wandb.started
    assert (first["project"], first["name"], first["resume"]) == ("lab", "run", "allow")
    assert first["config"]["train"]["steps"] == 20
    assert first["id"] == second["id"]
    assert wandb.ended == 2
    lines = {record.pop("step"): record for record in metric_lines(folder)}
    assert [step for step, _ in wandb.logged] == list(lines)
    for step, numbers in wandb.logged:
        for name, value in lines[step].items():
            is_number = isinstance(value, int | float)
            assert (numbers.get(name) == value) if is_number else name not in numbers
        assert {"train/seconds", "train/flops"} <= numbers.keys()


@pytest.mark.parametrize(
    ("fails_in", "calls"), [("init", 0), ("log", 1), ("finish", 9)]
)
def test_a_wandb_that_fails_warns_once(
    tmp_path, monkeypatch, unobserved, fails_in, calls
):
    wandb = Wandb(monkeypatch, fails_in)
    folder = tmp_path / "run"
    flags = f"--workdir={folder}", "--wandb=lab", *short_flags()
    done = call_here(train.main, *flags)
    assert done.returncode == 0, done.stderr
    warning = "warning: no more of wandb: RuntimeError: the network is gone"
    assert done.stdout.count(warning) == 1
    assert wandb.calls == min(calls, len(metric_lines(folder)))
    assert_unchanged(folder, unobserved)


def test_wandb_that_is_not_installed_is_said_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    flags = f"--workdir={tmp_path / 'run'}", "--wandb=lab", *short_flags()
    done = call_here(train.main, *flags)
    assert done.returncode == 2
    assert done.stderr == (
        "error: --wandb=lab: wandb is not installed; pip install wandb\n"
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_steps_are_profiled_and_not_changed(tmp_path, unobserved):
    folder = tmp_path / "run"
    flags = f"--workdir={folder}", "--profile=4,6", *short_flags()
    done = call_here(train.main, *flags)
    assert done.returncode == 0, done.stderr
    assert f"profile of steps from 4 on written to {folder}/profile" in done.stdout
    (trace,) = folder.glob("profile/plugins/profile/*/*.xplane.pb")
    content = trace.read_bytes()
    assert b"train_step" in content or b"jit_" in content
    (folder / "profile").rename(tmp_path / "profile")
    assert_unchanged(folder, unobserved)
    done = call_here(train.main, *flags, "--config.train.steps=21")
    assert done.returncode == 0, done.stderr
    assert "--profile: step 6 is over; nothing is profiled" in done.stdout
    assert not (folder / "profile").exists()


@pytest.mark.parametrize(
    "value", ["3", "6,4", "0,2", "2,21", "a,b", "1,2,3", "-1,2", "2.5,3"]
)
def test_steps_that_no_run_has_are_refused(tmp_path, value):
    flags = f"--workdir={tmp_path / 'run'}", f"--profile={value}", *short_flags()
    done = call_here(train.main, *flags)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --profile={value}; expected ")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_without_observers_the_loop_is_left_as_it_is(tmp_path):
    loop = types.SimpleNamespace(train_step=object(), on_record=object())
    before = vars(loop).copy()
    with Watch().observing(loop, tmp_path, {}, 0):
        assert vars(loop) == before


@pytest.mark.slow
def test_a_profile_of_a_run_that_is_stopped_is_written(tmp_path):
    loop = types.SimpleNamespace(train_step=lambda state, batch: state + batch)
    watch = Watch(profile=(2, 9))

    def run():
        with watch.observing(loop, tmp_path, {}, 0):
            assert [loop.train_step(s, 1) for s in range(3)] == [1, 2, 3]
            raise KeyError

    with pytest.raises(KeyError):
        run()
    assert len([*tmp_path.glob("profile/plugins/profile/*/*.xplane.pb")]) == 1
