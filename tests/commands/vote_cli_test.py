# SPDX-License-Identifier: Apache-2.0
"""train.py and eval.py on ARC and mazes: votes, submission, ablations, pooling."""

import json
import shutil

import pytest

from tests.helpers.runs import ROOT, as_flags, call_here, metric_lines
from trm_jax.commands import eval as eval_command
from trm_jax.commands import evaluated_run, train
from trm_jax.commands.evaluated_run import EvaluatedRun

pytestmark = pytest.mark.usefixtures("commands_here")

BAD = ROOT / "tests" / "data_pipeline" / "bad"
SMALL = {
    "model.layers": ("attention", "swiglu"),
    "model.d_model": 16,
    "model.attention.num_heads": 2,
    "model.swiglu.width": 16,
    "halting.max_supervision_steps": 2,
    "train.batch_size": 8,
    "train.steps": 6,
    "train.log_every": 3,
    "train.eval_every": 3,
    "train.checkpoint_every": 3,
    "eval.batch_size": 8,
}
ARC = SMALL | {
    "data.train": BAD / "arc_ok",
    "data.test_puzzles": 0,
    "data.num_augmentations": 4,
}
NUM_FORMS = 5


@pytest.fixture(scope="module")
def arc_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arc") / "run"
    flags = as_flags("configs/arc_small.py", **ARC)
    result = call_here(train.main, f"--workdir={folder}", *flags)
    assert result.returncode == 0, result.stderr
    return folder


def evaluated(folder, *flags, name="step_6"):
    """The report, whose name records the votes that the flags request."""
    votes = [f"-votes_{f.partition('=')[2]}" for f in flags if f.startswith("--votes")]
    name += "".join(votes if "votes" not in name else [])
    result = call_here(eval_command.main, f"--workdir={folder}", *flags)
    assert result.returncode == 0, result.stderr
    report = json.loads((folder / "eval" / f"{name}.json").read_text())
    return report, result.stdout


def refused(result, *named):
    assert result.returncode == 2, result.stdout + result.stderr
    assert result.stderr.count("\n") == 1
    assert [word for word in named if word not in result.stderr] == []


def test_training_logs_the_votes_of_its_evaluations(arc_run):
    last = metric_lines(arc_run)[-1]
    assert {k for k in last if "pass@" in k} == {f"eval/pass@{k}" for k in (1, 2, 5)}
    identity = json.loads((arc_run / "dataset.json").read_text())
    assert identity["sizes"]["num_puzzles"] == 1 + 3 * NUM_FORMS
    assert len(identity["id_map"]) == 64


def test_evaluation_votes_and_writes_a_valid_submission(arc_run):
    report, text = evaluated(arc_run, "--votes=0")
    assert report["tasks"] == 3
    assert report["test_inputs"] == report["puzzles"] == 4
    assert set(report["pass_at"]) == {"1", "2", "5"}
    for share in report["pass_at"].values():
        assert share["ci95"][0] <= share["value"] <= share["ci95"][1]
    assert report["coverage"]["overall"]["test_inputs"] == 4
    assert max(report["per_input"]["unique"]) <= NUM_FORMS
    last = metric_lines(arc_run)[-1]  # the run also votes over all forms
    assert report["pass_at"]["2"]["value"] == last["eval/pass@2"]
    for word in ("exact accuracy", "pass@", "coverage", "submission_6-votes_0.json"):
        assert word in text
    path = arc_run / "eval" / "submission_6-votes_0.json"
    submission = json.loads(path.read_text())
    asked = json.loads(
        (BAD / "arc_ok" / "arc-agi_training_challenges.json").read_text()
    )
    assert submission.keys() == asked.keys()
    for task, answers in submission.items():
        assert len(answers) == len(asked[task]["test"])
        for answer in answers:
            assert list(answer) == ["attempt_1", "attempt_2"]
            for grid in answer.values():
                assert 1 <= len(grid) <= 30
                assert {type(cell) for row in grid for cell in row} == {int}


def test_an_evaluation_repeats_only_what_was_finished(arc_run, monkeypatch):
    parts = arc_run / "eval" / "parts"
    with monkeypatch.context() as patch:  # as if it were killed before its report
        patch.setattr(EvaluatedRun, "forget", lambda run: None)
        first, _ = evaluated(arc_run, "--votes=3")
    (folder,) = parts.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(EvaluatedRun, "forget", lambda run: None)
        patch.setattr(evaluated_run, "sources_digest", lambda: "other code")
        of_other_code, _ = evaluated(arc_run, "--votes=3")
    assert of_other_code.pop("rows_per_s") > 0
    shutil.rmtree(next(path for path in parts.iterdir() if path != folder))
    resumed, _ = evaluated(arc_run, "--votes=3")
    assert resumed.pop("rows_per_s") is None
    assert list(parts.iterdir()) == []
    again, _ = evaluated(arc_run, "--votes=3")
    for report in (first, again):
        assert report.pop("rows_per_s") > 0
    assert first == resumed == again == of_other_code


@pytest.mark.parametrize(
    "ids", ["blank", pytest.param("random", marks=pytest.mark.slow)]
)
def test_ablations_are_recorded(arc_run, ids):
    usual, _ = evaluated(arc_run, "--votes=2")
    name = f"step_6-votes_2-ids_{ids}"
    report, _ = evaluated(arc_run, "--votes=2", f"--puzzle_ids={ids}", name=name)
    assert (arc_run / "eval" / f"submission_6-votes_2-ids_{ids}.json").exists()
    assert usual["puzzle_ids"] == "own"
    assert report["puzzle_ids"] == ids
    assert report["votes"] == 2


@pytest.mark.slow
def test_pooled_votes_are_labelled(arc_run):
    report, text = evaluated(arc_run, "--votes=0", "--pool=6,3", name="step_3_6")
    assert report["pooled_steps"] == [3, 6]
    assert "pooled" in report["coverage"]["label"]
    assert "pooled" in text
    single, _ = evaluated(arc_run, "--votes=0")
    assert single["pooled_steps"] == [6]
    assert report["exact_accuracy"] == single["exact_accuracy"]


@pytest.mark.slow
def test_data_whose_ids_stand_for_other_puzzles_is_not_scored(arc_run, tmp_path):
    other = tmp_path / "arc"
    shutil.copytree(BAD / "arc_ok", other)
    path = other / "arc-agi_training_challenges.json"
    tasks = json.loads(path.read_text())
    solutions = other / "arc-agi_training_solutions.json"
    answers = json.loads(solutions.read_text())
    order = sorted(tasks, reverse=True)
    path.write_text(json.dumps({name: tasks[name] for name in order}))
    solutions.write_text(json.dumps({name: answers[name] for name in order}))
    flag = f"--data={other}"
    result = call_here(eval_command.main, f"--workdir={arc_run}", flag)
    refused(result, str(other), "ids stand for other tasks", "dataset.json")
    result = call_here(
        eval_command.main, f"--workdir={arc_run}", flag, "--puzzle_ids=blank"
    )
    assert result.returncode == 0, result.stderr
    # The digest in the name tells apart folders of one name.
    (path,) = (arc_run / "eval").glob("step_6-ids_blank-data_arc_????????.json")
    assert json.loads(path.read_text())["data"]["path"] == str(other)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--pool=6,x"], ["--pool=6,x", "step numbers"]),
        (["--pool=3,6", "--step=6"], ["no --step"]),
        (["--votes=-1"], ["votes"]),
        (["--votes=6"], ["votes = 6", "5 form"]),
        (["--pool=\u00b2"], ["step numbers"]),
        (["--puzzle_ids=none"], ["puzzle_ids", "blank"]),
    ],
)
def test_wrong_flags_end_in_one_clear_message(arc_run, flags, named):
    refused(call_here(eval_command.main, f"--workdir={arc_run}", *flags), *named)


@pytest.mark.slow
def test_mazes_are_trained_on_turned_and_voted_over(tmp_path):
    flags = as_flags(
        "configs/maze_small.py",
        **SMALL,
        **{"data.train_puzzles": 16, "data.test_puzzles": 8, "data.maze.side": 6},
    )
    result = call_here(train.main, f"--workdir={tmp_path}", *flags)
    assert result.returncode == 0, result.stderr
    assert "eval/valid_accuracy" in metric_lines(tmp_path)[-1]
    report, text = evaluated(tmp_path, "--votes=0")
    assert report["puzzles"] == 8
    assert 0 <= report["voted_valid_accuracy"] <= 1
    for word in ("valid", "voted exact", "voted valid"):
        assert word in text
    pooled, _ = evaluated(tmp_path, "--pool=3,6", name="step_3_6")
    assert pooled["pooled_steps"] == [3, 6]  # pooled even with votes = 1


@pytest.mark.slow
def test_a_hidden_test_set_gets_a_submission_and_no_score(tmp_path):
    folder, hidden = tmp_path / "run", BAD / "arc_no_solutions_file"
    flags = as_flags("configs/arc_small.py", **ARC | {"data.train": hidden})
    result = call_here(train.main, f"--workdir={folder}", *flags)
    assert result.returncode == 0, result.stderr
    assert not any("pass@" in key for key in metric_lines(folder)[-1])
    report, text = evaluated(folder)
    assert "pass_at" not in report
    assert "exact_accuracy" not in report
    assert "nothing is scored" in text
    submission = json.loads((folder / "eval" / "submission.json").read_text())
    assert len(submission) == 3


@pytest.mark.slow
def test_a_bundle_with_leaks_is_refused_by_a_run(tmp_path):
    both = tmp_path / "arc"
    both.mkdir()
    for part in ("challenges", "solutions"):
        text = (BAD / "arc_ok" / f"arc-agi_training_{part}.json").read_text()
        for subset in ("training2", "evaluation"):
            (both / f"arc-agi_{subset}_{part}.json").write_text(text)
    flags = as_flags("configs/arc_small.py", **ARC | {"data.train": both})
    subsets = [
        "--config.data.arc.train_subsets=('training2','evaluation')",
        "--config.data.arc.test_subset=evaluation",
    ]
    where = f"--workdir={tmp_path / 'run'}"
    result = call_here(train.main, where, *flags, *subsets)
    refused(result, "3 of the 3 tasks of evaluation", "training2", "allow_leaks")
    assert not (tmp_path / "run").exists()
    forced = call_here(
        train.main, where, *flags, *subsets, "--config.data.arc.allow_leaks=True"
    )
    assert forced.returncode == 0, forced.stderr
    assert "leak: 007bbfb7" in forced.stdout + forced.stderr
