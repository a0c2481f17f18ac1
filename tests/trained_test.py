# SPDX-License-Identifier: Apache-2.0
"""What notebooks use: load, solve, train, cycle."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import trm_jax
from data_pipeline import tasks
from data_pipeline.errors import DataError
from data_pipeline.sudoku.grid import SudokuShape, decode
from data_pipeline.sudoku.text import is_solution
from tests.helpers import short_run
from tests.helpers.runs import edit_config
from trm_jax import api
from trm_jax.errors import CheckpointError, ConfigError, Stopped
from trm_jax.files import json_digest
from trm_jax.training.sharding import make_mesh

FOUR = SudokuShape(2, 2)


def config_of(variant="mlp_t", **train):
    config = short_run.get_config(variant)
    config.train.update(train)
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A workdir, its model, and the test questions."""
    folder = tmp_path_factory.mktemp("run")
    config = config_of(steps=120, eval_every=40, checkpoint_every=40)
    model = trm_jax.train(config, folder)
    test = tasks.load(config.data.to_dict()).test.puzzles
    return folder, model, [decode(tokens) for tokens in test.inputs]


def test_a_puzzle_is_one_solution_and_a_list_a_list(run):
    _, model, texts = run
    one, many = model.solve(texts[0]), model.solve(texts[:3])
    assert isinstance(one, trm_jax.Solution)
    assert [solution.answer for solution in many][0] == one.answer
    assert model.solve([]) == []
    for text, solution in zip(texts, many, strict=False):
        assert len(solution.answer) == 16
        digits = "".join(map(str, solution.grid.ravel()))
        assert digits.replace("0", ".") == solution.answer
        tokens = (model.task.parse(t) for t in (solution.answer, text))
        try:
            expected = is_solution(*tokens, FOUR)
        except DataError:  # an answer that breaks a rule is not parsed
            expected = False
        assert solution.is_valid == expected
        assert 0 < solution.halt_probability < 1
        assert (solution.steps, solution.votes) == (4, 1)


def test_the_answer_is_in_the_form_of_the_question(run):
    _, model, texts = run
    rows = [
        [int(c) if c != "." else 0 for c in texts[0][i : i + 4]]
        for i in range(0, 16, 4)
    ]
    as_text = model.solve(texts[0])
    for question in (rows, np.array(rows)):
        as_rows = model.solve(question)
        assert as_rows.answer == as_text.grid.tolist()
    assert [s.answer for s in model.solve([rows, rows])] == [as_text.grid.tolist()] * 2
    with_zeros = texts[0].replace(".", "0")
    assert model.solve(with_zeros).answer == as_text.answer


def test_answers_are_those_of_the_runs_evaluation(run):
    folder, model, texts = run
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    logged = json.loads(lines[-1])["eval/cell_accuracy"]
    labels = tasks.load(model.config["data"]).test.puzzles.labels
    answers = np.stack([s.grid.ravel() for s in model.solve(texts)]) + 1
    assert (answers == labels).mean() == pytest.approx(logged)


def test_evaluate_gives_the_scores_of_the_runs_evaluation(run):
    folder, model, _ = run
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    logged = json.loads(lines[-1])["eval/cell_accuracy"]
    output = model.evaluate()
    assert output.cells_right[-1].mean() == pytest.approx(logged)
    questions = model.task.load().test.questions(max_puzzles=3)
    few = model.evaluate(questions, steps=2)
    assert few.cells_right.shape == (2, 3)
    np.testing.assert_allclose(few.q_halt, output.q_halt[:2, :3], rtol=1e-4)
    with pytest.raises(ConfigError, match="steps = 0"):
        model.evaluate(questions, steps=0)


def test_steps_and_votes_are_taken(run):
    _, model, texts = run
    assert model.solve(texts[0], steps=1).steps == 1
    assert (
        model.solve(texts[0], steps=1).halt_probability
        != model.solve(texts[0]).halt_probability
    )
    labels = tasks.load(model.config["data"]).test.puzzles.labels
    nearly = [decode(tokens)[:-1] + "." for tokens in labels]
    voted = model.solve(nearly, votes=16)
    assert all(1 <= solution.votes <= 16 for solution in voted)
    assert max(solution.votes for solution in voted) > 1
    with pytest.raises(ConfigError, match="steps = 0"):
        model.solve(texts[0], steps=0)
    with pytest.raises(DataError, match="votes = -1"):
        model.solve(texts[0], votes=-1)
    with pytest.raises(DataError, match="have no names"):
        model.solve(texts[0], task="00d62c1b")


@pytest.mark.parametrize(
    ("puzzle", "message"),
    [
        ("12", "2 characters found, 16 expected"),
        ("x" + "." * 15, "'x' at row 1, column 1"),
        ([[1, 2], [3, 4]], r"shape \(2, 2\) of int64; expected 4 rows of 4"),
        ([[0, 0, 0, 0], [0, 0]], "expected 4 rows of 4 whole numbers"),
        ([[0, 0, 0, 5]] + [[0] * 4] * 3, "5 at row 1, column 4; expected 0 to 4"),
        ([[0.5, 0, 0, 0]] + [[0] * 4] * 3, "float64; expected 4 rows"),
    ],
)
def test_a_wrong_puzzle_is_refused_with_its_place(run, puzzle, message):
    with pytest.raises(DataError, match=message):
        run[1].solve(puzzle)


def test_each_number_of_rows_is_compiled_once(run):
    _, model, texts = run
    model.solve(texts[:3], steps=3)
    step = model._eval_steps[3]
    assert step._cache_size() == 1
    model.solve(texts[:4], steps=3)  # rounded up to as many rows
    assert step._cache_size() == 1
    model.solve(texts[0], steps=3)
    assert step._cache_size() == 2


def test_a_model_is_loaded_from_a_workdir_or_a_step_of_it(run):
    folder, model, texts = run
    newest = trm_jax.load(folder)
    assert newest.step == model.step == 120
    for path, step in ((folder / "checkpoints" / "80", None), (folder, 80)):
        assert trm_jax.load(path, step=step).step == 80
    raw = trm_jax.load(str(folder), weights="raw")
    as_arrays = jax.tree.map(np.asarray, (raw.params, newest.params))
    assert jax.tree.structure(as_arrays[0]) == jax.tree.structure(as_arrays[1])
    assert (raw.params["head"]["kernel"] != newest.params["head"]["kernel"]).any()
    assert newest.solve(texts[0]).answer == model.solve(texts[0]).answer
    assert "16,002" not in repr(newest)
    assert "task sudoku; step 120" in repr(newest)


def test_what_cannot_be_loaded_is_named(run, tmp_path):
    folder, *_ = run
    with pytest.raises(ConfigError, match=f"{tmp_path}/config.json: not found"):
        trm_jax.load(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint of step 7; found: 40, 80"):
        trm_jax.load(folder, step=7)
    with pytest.raises(ConfigError, match="weights = 'mean'; expected ema or raw"):
        trm_jax.load(folder, weights="mean")


def test_only_the_weights_are_read_and_these_are_checked(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run[0], folder)
    # The carry in the checkpoint has 8 rows.
    edit_config(folder, lambda config: config["train"].update(batch_size=4))
    assert trm_jax.load(folder).step == 120
    path = folder / "checkpoints" / "120" / "manifest" / "metadata"
    body = json.loads(path.read_text())
    del body["checksum"]
    body["leaves"]["ema_params/head/kernel"]["digest"] = "0"
    path.write_text(json.dumps(body | {"checksum": json_digest(body)}))
    with pytest.raises(CheckpointError, match="do not match their digest"):
        trm_jax.load(folder)
    assert trm_jax.load(folder, weights="raw").step == 120


def test_interrupted_training_saves_raises_and_gives_signals_back(
    tmp_path, monkeypatch
):
    def handlers():
        return [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]

    before, build = handlers(), api.run

    def interrupted(*args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        return build(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(api, "run", interrupted)
        with pytest.raises(Stopped, match="run again to resume"):
            trm_jax.train(config_of(), tmp_path)
    assert handlers() == before
    with pytest.raises(ConfigError, match="another run"):
        trm_jax.train(config_of(batch_size=4), tmp_path)
    assert handlers() == before
    assert trm_jax.train(config_of(), tmp_path).step == 20


def test_a_second_interrupt_ends_training_at_once(tmp_path, monkeypatch):
    def impatient(*args, **kwargs):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(api, "run", impatient)
    with pytest.raises(KeyboardInterrupt):
        trm_jax.train(config_of(), tmp_path)


def test_a_worker_thread_may_train(tmp_path):
    steps = []

    def work():
        steps.append(trm_jax.train(config_of(steps=3), tmp_path).step)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert steps == [3]


def test_configs_are_had_by_name():
    config = trm_jax.get_config("demo:mamba2_mlp_t")
    assert config.model.layers == ("mamba2", "mamba2", "token_mlp")
    config.train.steps = 7  # it may be edited
    assert trm_jax.get_config().data.task == "sudoku"
    with pytest.raises(ConfigError, match="'demon'; expected one of arc_agi_1, .*demo"):
        trm_jax.get_config("demon")
    with pytest.raises(ConfigError, match="demo:mlp: unknown variant 'mlp'; .*mlp_t"):
        trm_jax.get_config("demo:mlp")


def test_importing_the_package_takes_no_time(tmp_path):
    code = (
        "import time; before = time.process_time()\n"
        "import trm_jax, sys\n"
        "assert time.process_time() - before < 0.3\n"
        "assert 'jax' not in sys.modules and 'absl' not in sys.modules\n"
        "assert not hasattr(trm_jax, 'no_such_name')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_float64_models_need_no_global_setting(tmp_path):
    config = config_of(steps=2)
    config.model.dtype = "float64"
    model = trm_jax.train(config, tmp_path)
    assert not jax.config.read("jax_enable_x64")
    assert isinstance(model.solve("." * 16).answer, str)
    assert trm_jax.load(tmp_path).step == 2


@pytest.mark.slow
def test_a_cycle_can_be_differentiated_in_both_modes(run):
    _, model, texts = run
    x = model.embed(texts[0])
    keys = jax.random.split(jax.random.key(0), 4)
    y, z, dy, dz = (jax.random.normal(key, x.shape) for key in keys)

    def cycle(y, z):
        return model.cycle(y, z, x)

    _, tangents = jax.jvp(cycle, (y, z), (dy, dz))
    _, pull = jax.vjp(cycle, y, z)
    cotangents = pull(tangents)
    left = sum(jnp.vdot(t, t) for t in tangents)
    right = sum(map(jnp.vdot, cotangents, (dy, dz)))
    assert left > 0
    np.testing.assert_allclose(left, right, rtol=1e-3)


def test_a_cycle_is_that_of_a_supervision_step(run):
    _, model, texts = run
    x = model.embed(texts[0])
    y, z = (jnp.broadcast_to(model.constants[k], x.shape) for k in ("y", "z"))
    for _ in range(4 * model.config["rule"]["trm"]["h_cycles"]):
        y, z = model.cycle(y, z, x)
    logits, _ = model.bound().predict(y)
    answer = decode(np.asarray(logits.argmax(-1))[0])
    assert answer == model.solve(texts[0]).answer
    assert model._built.mesh == make_mesh(1)
