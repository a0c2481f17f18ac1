# SPDX-License-Identifier: Apache-2.0
"""The page that runs a model in the browser computes what JAX computes."""

import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import trm_jax
from benchmarks.playground import by_jax, by_node
from configs import smoke
from data_pipeline import tasks
from data_pipeline.sudoku.grid import SudokuShape, decode, encode
from data_pipeline.sudoku.text import is_solution, parse_puzzle
from tests.helpers.browser import needs_node
from tests.helpers.runs import call
from trm_jax.errors import ConfigError
from trm_jax.inspect import playground
from trm_jax.rules.losses import log_stablemax
from trm_jax.trained import Model
from trm_jax.training.build import build

STEPS = 4
# The largest accepted difference of logits, which are about 1, after one step and after
# all: random weights amplify rounding from step to step.
TOLERANCE = 2e-5, 1e-3
PUZZLE = "1.....3..4.....2"
VARIANTS = {
    "post": {"halting.max_supervision_steps": STEPS},
    "pre": {
        "model.layers": ("swiglu", "token_mlp", "swiglu"),
        "model.norm": "pre",
        "model.positions": "learned",
        "model.d_model": 30,
        "model.prefix_len": 3,
        "model.registers": 1,
        "model.puzzle_dim": 40,
        "rule.trm.l_cycles": 3,
        "rule.trm.cell_loss": "softmax",
        "halting.halt_position": "last",
        "data.sudoku.box_cols": 3,
    },
    "mean": {
        "model.layers": ("token_mlp", "token_mlp", "swiglu"),
        "model.positions": "rows_columns_boxes",
        "model.prefix_len": 0,
        "model.registers": 2,
        "rule.trm.h_cycles": 1,
        "halting.halt_position": "mean",
        "data.sudoku.box_rows": 3,
        "data.sudoku.box_cols": 3,
    },
}


@functools.cache
def model_of(variant):
    """A model of a changed configs/smoke.py with random weights; nothing is trained."""
    config = smoke.get_config()
    config.update_from_flattened_dict(VARIANTS[variant])
    config = config.to_dict()
    built = build(config, tasks.spec_of(config["data"]).sizes)
    rng = np.random.default_rng(0)

    def draw(like):
        size = like.shape[0] if len(like.shape) > 1 else 1
        return jnp.asarray(rng.normal(size=like.shape) / np.sqrt(size), like.dtype)

    like = built.state_like
    weights = like.ema_params, like.constants, like.puzzle_table
    return Model(config, built, jax.tree.map(draw, weights), step=0, id_map=None)


def random_questions(model, count=3):
    config = model._built.recipe.model.config
    shape = count, config.num_cells
    return np.random.default_rng(1).integers(1, config.vocab_size, shape)


@pytest.fixture
def no_examples(monkeypatch):
    """Pages without example puzzles, since hard ones take seconds to generate."""
    monkeypatch.setattr(playground, "examples", lambda box, seed: [])


@needs_node
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_page_computes_what_jax_computes(variant, no_examples):
    model = model_of(variant)
    questions = random_questions(model)
    logits, q = by_jax(model, questions, STEPS)
    found_logits, found_q, posted = by_node(playground.page(model), questions, STEPS)
    assert abs(logits).max() > 0.5
    assert np.ptp(logits, axis=0).max() > 1e-2  # the steps differ
    assert_close(found_logits, logits)
    assert_close(found_q, q)
    best = logits.argmax(-1).swapaxes(0, 1).reshape(len(posted), -1)
    assert [one["tokens"] for one in posted] == best.tolist()
    loss = model.config["rule"]["trm"]["cell_loss"]
    log_p = log_probs(logits, loss).swapaxes(0, 1)
    p = np.exp(log_p).reshape(len(posted), questions.shape[1], -1)
    confidence = [one["confidence"] for one in posted]
    np.testing.assert_allclose(confidence, p.max(-1), atol=1e-4)
    entropy = [one["entropy"] for one in posted]
    np.testing.assert_allclose(entropy, -(p * np.log(p)).sum(-1), atol=1e-4)


def assert_close(found, expected):
    """Compare logits of all steps with those of JAX."""
    first, last = TOLERANCE
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=first)
    np.testing.assert_allclose(found, expected, rtol=0, atol=last)


def log_probs(logits, loss):
    of = log_stablemax if loss == "stablemax" else jax.nn.log_softmax
    return np.asarray(of(jnp.asarray(logits)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.task": "maze"}, r"data.task = 'maze'; .* expects 'sudoku'"),
        ({"rule.name": "hrm"}, r"rule.name = 'hrm'; .* expects 'trm'"),
        ({"rule.trm.starts": "fixed"}, r"starts = 'fixed'; .* expects 'published'"),
        (
            {"model.layers": ("mamba2", "attention", "swiglu")},
            r"model.layers has attention, mamba2; .* only token_mlp and swiglu",
        ),
        (
            {"model.swiglu.inner_norm": True},
            r"model.swiglu.inner_norm = True; .* expects False",
        ),
    ],
)
def test_what_the_page_cannot_run_is_refused(changes, message):
    config = smoke.get_config()
    config.update_from_flattened_dict(changes)
    with pytest.raises(ConfigError, match=message):
        playground.check(config.to_dict())


def test_a_wrong_command_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as exit:
        playground.main([str(tmp_path / "none"), str(tmp_path / "page.html")])
    assert exit.value.code == 2
    assert f"{tmp_path}/none: No such file" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    "box", [(2, 2), (2, 3), pytest.param((3, 3), marks=pytest.mark.slow)]
)
def test_the_examples_are_puzzles_from_many_givens_to_few(box):
    shape = SudokuShape(*box)
    found = playground.examples(box, seed=5)
    givens = [sum(c != "." for c in text) for text in found]
    assert givens == sorted(givens, reverse=True)
    assert givens[0] > givens[-1]
    assert len(set(found)) > 3
    assert all(len(parse_puzzle(text, shape)) == shape.num_cells for text in found)
    assert found == playground.examples(box, seed=5) != playground.examples(box, seed=6)


@pytest.fixture(scope="module")
def opened(browser, tmp_path_factory):
    """The page of a model, in the browser, and the model."""
    model = model_of("post")
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(playground.page(model), encoding="utf-8")
    browser.show(width=1000)
    browser.open(path)
    browser.until("window.playground")
    return browser, model


def cells(browser):
    return browser.eval("playground.grid.cells.map((_, i) => playground.grid.text(i))")


def marked(browser, name):
    of = f"[...document.querySelectorAll('#grid .cell')].map(c => c.matches('.{name}'))"
    return np.array(browser.eval(of))


def test_a_visitor_types_a_puzzle_and_the_model_answers_like_jax(opened):
    browser, model = opened
    browser.click("#clear")
    browser.click("#grid input")
    for character in PUZZLE:
        browser.press(character)
    assert cells(browser) == [c.replace(".", "") for c in PUZZLE]
    assert browser.eval("playground.sudoku.write(playground.question)") == PUZZLE
    question = encode(PUZZLE).astype(int)
    logits, q = by_jax(model, np.tile(question, (3, 1)), STEPS)
    logits, q = logits[:, 0], q[:, 0]
    browser.eval("playground.player.speed.value = 'fast'")
    browser.click(".buttons button:nth-child(2)")
    browser.until("playground.player.step === 4 && !playground.player.playing")
    tokens = logits.argmax(-1)
    shown = encode("".join(c if c and c != "?" else "." for c in cells(browser)))
    assert (shown == np.maximum(tokens[-1], 1)).all()
    found = browser.eval("playground.steps.map(s => [...s.logits])")
    assert_close(np.reshape(found, logits.shape), logits)
    halting = browser.eval("playground.steps.map(s => s.q_halt)")
    assert_close(halting, q)
    assert (marked(browser, "changed") == (tokens[-1] != tokens[-2])).all()
    solved = is_solution(tokens[-1], question, SudokuShape(2, 2))
    status = browser.eval("document.getElementById('status').textContent")
    assert status.startswith("Step 4: ")
    assert ("Solved: no rule is broken." in status) == solved
    assert not solved  # since the weights are random
    browser.press("Home")  # the focus is on Play, so this goes to step 0
    browser.until("playground.player.step === 0")
    assert cells(browser) == [c.replace(".", "") for c in PUZZLE]


def test_the_page_loads_nothing_and_fails_nowhere(opened):
    browser, _ = opened
    kinds = [url.split(":")[0] for url in browser.requests]
    assert sorted(kinds) == ["blob", "file"]
    assert browser.errors == []


def paste(browser, text):
    browser.eval(
        "(() => { const d = new DataTransfer();"
        f"d.setData('text', {json.dumps(text)});"
        "document.body.dispatchEvent(new ClipboardEvent('paste',"
        "{clipboardData: d, bubbles: true, cancelable: true})); })()"
    )
    return browser.eval("document.getElementById('status').textContent")


def test_a_puzzle_is_pasted_and_edited(opened):
    browser, _ = opened
    assert "Press Play" in paste(browser, "1 0 | . .\n..3.\n.4..\n...2\n")
    assert browser.eval("document.getElementById('text').value") == PUZZLE
    assert "15 cells found: expected 16" in paste(browser, PUZZLE[:-1])
    assert "“5” at place 2" in paste(browser, "15" + PUZZLE[2:])
    assert browser.eval("document.getElementById('text').value") == PUZZLE
    browser.click("#grid input")
    for key in ("ArrowRight", "ArrowDown", "3", "Delete", "ArrowLeft"):
        browser.press(key)
    expected = PUZZLE[:5] + "3" + PUZZLE[6 : 7 - 1] + "." + PUZZLE[7:]
    assert browser.eval("document.getElementById('text').value") == expected
    status = browser.eval("document.getElementById('status').textContent")
    assert "The puzzle itself breaks a rule" not in status
    paste(browser, "11" + PUZZLE[2:])
    assert marked(browser, "bad")[:2].all()
    status = browser.eval("document.getElementById('status').textContent")
    assert "The puzzle itself breaks a rule" in status


def test_the_verdict_is_that_of_the_rules(opened):
    browser, _ = opened
    shape, rng = SudokuShape(2, 2), np.random.default_rng(0)
    solved = encode("1234341221434321")
    for changed in range(4):
        tokens = solved.copy()
        tokens[rng.permutation(16)[:changed]] = rng.integers(1, 6, changed)
        question = np.where(rng.random(16) < 0.4, solved, 1)
        asked = json.dumps([tokens.tolist(), question.tolist()])
        verdict = browser.eval(
            f"(({{bad, solved}}) => [[...bad], solved])"
            f"(playground.sudoku.judge(...{asked}))"
        )
        assert verdict[1] == is_solution(tokens, question, shape)
        altered = np.flatnonzero((question > 1) & (question != tokens))
        assert set(verdict[0]) == repeated(tokens, shape) | set(altered.tolist())


@pytest.mark.parametrize("box", [(2, 2), (2, 3), (3, 3)])
def test_repeated_digits_are_found_in_rows_columns_and_boxes(opened, box):
    browser, _ = opened
    shape, rng = SudokuShape(*box), np.random.default_rng(0)
    for _ in range(10):
        shown = rng.random(shape.num_cells) < 0.2
        tokens = np.where(shown, rng.integers(2, shape.side + 2, len(shown)), 1)
        asked = f"new Sudoku({json.dumps(box)}).broken({json.dumps(tokens.tolist())})"
        assert set(browser.eval(f"[...{asked}]")) == repeated(tokens, shape)


def repeated(tokens, shape):
    """The cells whose digit occurs again in a unit."""
    return {
        int(cell)
        for unit in shape.units()
        for cell in unit
        if tokens[cell] > 1 and (tokens[unit] == tokens[cell]).sum() > 1
    }


@pytest.mark.parametrize("width", [320, 400, 1200])
def test_the_page_fits_narrow_and_wide_windows(opened, width):
    browser, _ = opened
    browser.show(width=width)
    assert browser.eval("document.documentElement.scrollWidth") <= width
    browser.show(width=1000)


@needs_node
@pytest.mark.slow
def test_the_page_of_a_trained_model_solves_what_the_model_solves(tmp_path, browser):
    model = trm_jax.train(smoke.get_config(), tmp_path / "run")
    done = call(
        "-m", "trm_jax.inspect.playground", tmp_path / "run", tmp_path / "page.html"
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"page.html: 0\.\d\d MiB", done.stdout)
    done = call("benchmarks/playground.py", tmp_path / "run", "--steps=8")
    assert done.returncode == 0, done.stderr
    assert "equal answers: 512 of 512" in done.stdout
    largest = re.search(r"by step: (.*)", done.stdout)[1].split(", ")
    assert max(map(float, largest)) < 0.05
    assert float(largest[0]) < 1e-3
    questions = tasks.load(model.config["data"]).test.puzzles.inputs
    browser.open(tmp_path / "page.html")
    browser.until("window.playground")
    paste(browser, decode(questions[0]))
    browser.eval("playground.player.go(8)")
    status = browser.eval("document.getElementById('status').textContent")
    assert "Solved: no rule is broken." in status
    assert "".join(cells(browser)) == model.solve(decode(questions[0])).answer
